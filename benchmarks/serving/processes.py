# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How this benchmark's child processes are started."""

from __future__ import annotations

import os
import sys

from moe_layer.bundle import BENCHMARKS

MAX = (sys.executable, "-m", "max._entrypoints.pipelines")
"""The ``max`` command, which a host with an unpacked MAX has no script for."""


def environment() -> dict[str, str]:
    """The variables of a child: modules of this folder are found, and nothing needs a network."""
    paths = [str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "MAX_SERVE_DISABLE_TELEMETRY": "1",
        # The client starts up to 16 processes for each concurrency to make its few prompts.
        "MAX_BENCHMARK_MAX_TOKENIZER_THREADS": "1",
    }
