# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Copies the activations of routed rows side by side.

Hopper's tensor copies cannot gather rows. So the prefill matmul, which reads each
row once for every tile of features, has them gathered first.
"""

from std.math import ceildiv
from std.utils import StaticTuple

from max.gpu import WARP_SIZE, block_idx, lane_id, warp_id
from max.gpu.host import DeviceContext
from max.gpu.primitives import warp
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)

from .kernel_argument import TensorPointer
from .problem import MatmulProblem, RowMap

comptime _WARPS = 4
"""Warps of a block, each with a row."""

comptime _VECTOR = 8
"""Elements of a copy: 16 bytes."""

comptime _BATCH = 6
"""Copies of a lane that are on their way together."""


@__name(t"mxfp4_moe_gather_rows_{RowMapType.NAME}")
def _gather_kernel[
    RowMapType: RowMap
](gathered: TensorPointer[BFloat16], problem: MatmulProblem, rows: RowMapType):
    wait_on_dependent_grids()
    launch_dependent_grids()
    var row = Int(block_idx.x) * _WARPS + Int(warp_id())
    if row >= Int(problem.rows) or not _is_read(problem, row):
        return
    var depth = Int(problem.depth)
    var source = problem.activations.unsafe_offset(rows.source_row(row) * depth)
    var target = gathered.unsafe_offset(row * depth)
    for base in range(
        Int(lane_id()) * _VECTOR, depth, _BATCH * WARP_SIZE * _VECTOR
    ):
        var copies = StaticTuple[SIMD[.bfloat16, _VECTOR], _BATCH](
            fill=SIMD[.bfloat16, _VECTOR](0)
        )
        comptime for i in range(_BATCH):
            var at = base + i * WARP_SIZE * _VECTOR
            if at < depth:
                copies[i] = source.unsafe_load[width=_VECTOR, alignment=16](at)
        comptime for i in range(_BATCH):
            var at = base + i * WARP_SIZE * _VECTOR
            if at < depth:
                target.unsafe_store[alignment=16](at, copies[i])


@inline(.always)
def _is_read(problem: MatmulProblem, row: Int) -> Bool:
    # Rows of no expert may have no source. The lanes look for the row's group
    # together: the first whose end is behind the row.
    var passed = Int32(0)
    for base in range(-1, Int(problem.groups) + 1, WARP_SIZE):
        var group = base + Int(lane_id())
        if group <= Int(problem.groups):
            var _, end = problem.group_bounds(group)
            passed += Int32(end <= row)
    return problem.group_expert(Int(warp.sum(passed)) - 1) >= 0


def gather_rows[
    RowMapType: RowMap, //
](
    gathered: TensorPointer[BFloat16],
    problem: MatmulProblem,
    rows: RowMapType,
    ctx: DeviceContext,
) raises:
    """Enqueues the copies of all routed rows' activations.

    Parameters:
        RowMapType: Finds the activation row of a routed row.

    Args:
        gathered: BF16 `[rows, depth]`, at a multiple of 16 bytes. Rows of no
            expert stay as they are.
        problem: The operands and their sizes; a row's bytes are a multiple of
            16, and `activations` starts at one.
        rows: Maps a routed row to its activation row.
        ctx: The device.

    Raises:
        Error: If the launch fails.
    """
    ctx.enqueue_function[_gather_kernel[RowMapType]](
        gathered,
        problem,
        rows,
        grid_dim=ceildiv(Int(problem.rows), _WARPS),
        block_dim=_WARPS * WARP_SIZE,
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
