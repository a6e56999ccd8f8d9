# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The checkpoint that the GPU tests run on, and graphs compiled elsewhere.

``MAX_GPT_OSS_CHECKPOINT`` names a checkpoint's folder, in place of one that is made: real widths,
four layers. ``MAX_GPT_OSS_MEFS`` names the graphs that ``max warm-cache --export-mefs`` wrote for
it, so that no test compiles.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoint import PRESETS, make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gpt-oss checkpoint of real widths."""
    given = os.environ.get("MAX_GPT_OSS_CHECKPOINT")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("made") / "gpt-oss-4-layers"
    shapes = replace(PRESETS["20b"], layers=4)
    make_checkpoint(folder, shapes, seed=0, force=False, advance=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def graph_options() -> list[str]:
    """Options that bring in graphs compiled elsewhere, if there are any."""
    given = os.environ.get("MAX_GPT_OSS_MEFS")
    return ["--precompiled-mefs", given] if given else []
