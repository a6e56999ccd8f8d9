# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the host computes for the prefill kernel, as optimized code computes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import mojo_build

TILE_ROWS = 176
TILE_FEATURES = 192
STAGE_BYTES = TILE_ROWS * 128 + TILE_FEATURES * 32
"""176 rows of 64 BF16, and 32 packed bytes of every feature."""

OPERAND_BYTES = 16 + 8 * TILE_ROWS + 8 * TILE_FEATURES // 2
"""A flag a producer warp, and two numbers for every row and every pair of features."""

SHARED_BYTES = 227 * 1024
"""What a thread block can have on Hopper."""


@pytest.fixture(scope="module")
def program(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of a problem, on the CPU."""
    program = tmp_path_factory.mktemp("layout") / "print_prefill_layout"
    source = Path(__file__).with_name("print_prefill_layout.mojo")
    # For a GPU, since a warp has no lanes without one.
    sources = repository / "overlay/max/kernels/src"
    mojo_build.build(source, sources, program, "--target-accelerator=sm_90a")
    return program


@pytest.mark.parametrize(
    ("features", "depth", "groups", "stages"),
    [
        (5760, 2880, 128, 6),
        (2880, 2880, 32, 6),
        (2880, 1440, 128, 7),
        (192, 384, 6, 6),
        (208, 8192, 256, 4),
        (192, 192, 1, 3),
    ],
)
def test_stages_fill_what_there_is(
    program: Path, features: int, depth: int, groups: int, stages: int
) -> None:
    output = subprocess.check_output(
        [program, str(features), str(depth), str(groups)], text=True, env=dict(os.environ)
    )
    scales = 2 * TILE_FEATURES * (depth // 32)
    barriers_and_groups = 2 * 7 * 8 + 16 * (groups + 1)
    shared = stages * STAGE_BYTES + scales + 2 * OPERAND_BYTES + barriers_and_groups
    assert shared <= SHARED_BYTES
    # Fewer than four stages would wait for each other.
    expected = [-(-depth // 64), stages, -(-features // TILE_FEATURES), shared, int(stages >= 4)]
    assert [int(number) for number in output.split()] == expected
