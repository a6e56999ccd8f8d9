# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the host computes for the prefill kernel, as optimized code computes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import mojo_build

# Rows and features of a tile, and registers of a thread that multiplies.
FEW_ROWS = (96, 256, 112)
MANY_ROWS = (192, 192, 160)


def stage_bytes(features: int, rows: int) -> int:
    """32 packed bytes of every feature, and rows of 64 BF16."""
    return features * 32 + rows * 128


def operand_bytes(features: int, rows: int) -> int:
    """A flag a producer warp, the tile, two numbers for every row and every pair of features."""
    return 16 + 32 + 8 * rows + 8 * features // 2


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
    ("features", "depth", "groups", "stages_of_few", "stages_of_many"),
    [
        (5760, 2880, 128, (8, 12), (6, 15)),
        (2880, 2880, 32, (8, 12), (6, 15)),
        (2880, 1440, 128, (9, 14), (6, 16)),
        (192, 384, 6, (10, 15), (7, 16)),
        (208, 8192, 256, (4, 6), (4, 10)),
        (192, 192, 1, (11, 15), (7, 16)),
    ],
)
def test_stages_fill_what_there_is(
    program: Path,
    features: int,
    depth: int,
    groups: int,
    stages_of_few: tuple[int, int],
    stages_of_many: tuple[int, int],
) -> None:
    output = subprocess.check_output(
        [program, str(features), str(depth), str(groups)], text=True, env=dict(os.environ)
    )
    shapes = [(FEW_ROWS, stages_of_few), (MANY_ROWS, stages_of_many)]
    for line, (shape, stages) in zip(output.splitlines(), shapes, strict=True):
        tile_rows, tile_features, registers = shape
        scales = 2 * tile_features * (depth // 32)
        # Two of each of 16 stages, three of each of two sets of operands.
        barriers = -(-(2 * 16 + 3 * 2) * 8 // 16) * 16
        before = barriers + scales + 2 * operand_bytes(tile_features, tile_rows)
        first = -(-(before + 16 * (groups + 1)) // 1024) * 1024
        for count, rows in zip(stages, (tile_rows, 48), strict=True):
            assert first + count * stage_bytes(tile_features, rows) <= SHARED_BYTES
        steps = -(-depth // 64)
        expected = [steps, -(-features // tile_features), first, *stages]
        assert [int(n) for n in line.split()] == [*expected, int(steps >= 4), registers]


@pytest.mark.parametrize(("shape", "consumers"), [(FEW_ROWS, 4), (MANY_ROWS, 3)])
def test_registers_are_there_when_consumers_ask_for_them(
    shape: tuple[int, int, int], consumers: int
) -> None:
    warpgroups = consumers + 1
    # What a block begins with, a multiple of eight in each thread, is all that it can have.
    begun = 65536 // (128 * warpgroups) // 8 * 8
    assert consumers * shape[2] + 32 <= warpgroups * begun
