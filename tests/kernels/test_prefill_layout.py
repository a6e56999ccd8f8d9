# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the host computes for the prefill kernel, as optimized code computes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import mojo_build

TILE_ROWS = 192
TILE_FEATURES = 192


def stage_bytes(rows: int) -> int:
    """32 packed bytes of every feature, and rows of 64 BF16."""
    return TILE_FEATURES * 32 + rows * 128


OPERAND_BYTES = 16 + 32 + 8 * TILE_ROWS + 8 * TILE_FEATURES // 2
"""A flag a producer warp, the tile, and two numbers for every row and every pair of features."""

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
    ("features", "depth", "groups", "stages", "few_row_stages"),
    [
        (5760, 2880, 128, 6, 15),
        (2880, 2880, 32, 6, 15),
        (2880, 1440, 128, 6, 16),
        (192, 384, 6, 7, 16),
        (208, 8192, 256, 4, 10),
        (192, 192, 1, 7, 16),
    ],
)
def test_stages_fill_what_there_is(
    program: Path, features: int, depth: int, groups: int, stages: int, few_row_stages: int
) -> None:
    output = subprocess.check_output(
        [program, str(features), str(depth), str(groups)], text=True, env=dict(os.environ)
    )
    scales = 2 * TILE_FEATURES * (depth // 32)
    # Two of each of 16 stages, three of each of two sets of operands.
    barriers = -(-(2 * 16 + 3 * 2) * 8 // 16) * 16
    before = barriers + scales + 2 * OPERAND_BYTES + 16 * (groups + 1)
    first = -(-before // 1024) * 1024
    assert first + stages * stage_bytes(TILE_ROWS) <= SHARED_BYTES
    assert first + few_row_stages * stage_bytes(48) <= SHARED_BYTES
    steps = -(-depth // 64)
    expected = [steps, -(-features // TILE_FEATURES), first, stages, few_row_stages]
    assert [int(number) for number in output.split()] == [*expected, int(steps >= 4)]
