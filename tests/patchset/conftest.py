# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The repository's patch set, and a checkout assembled from the pinned wheel's own files."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from patchset.assembled import assemble_checkout
from patchset.base_wheel import CACHE, fetch_base_wheel
from patchset.changes import PatchSet


@pytest.fixture(scope="session")
def patchset(repository: Path) -> PatchSet:
    """The repository's own patch set."""
    return PatchSet.at(repository)


@pytest.fixture(scope="session")
def pristine(patchset: PatchSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The monorepo as far as the pinned wheel has it, committed. Not to be written to."""
    wheel = fetch_base_wheel(patchset.root, CACHE, f"3.{sys.version_info.minor}")
    root = tmp_path_factory.mktemp("monorepo") / "modular"
    assemble_checkout(root, wheel, patchset.pin.max_version)
    return root


@pytest.fixture
def checkout(pristine: Path, tmp_path: Path) -> Path:
    """A checkout of its own for one test."""
    return shutil.copytree(pristine, tmp_path / "modular")
