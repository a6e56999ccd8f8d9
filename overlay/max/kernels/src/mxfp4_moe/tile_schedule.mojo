# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Which rows of which group a thread block computes.

The number of row tiles depends on the routing, which only the device knows.
The grid holds as many as any routing can need, and each block finds its own by
walking the groups; blocks left over return.
"""

from std.bit import count_trailing_zeros
from std.math import ceildiv

from max.gpu import WARP_SIZE, lane_id
from max.gpu.primitives import warp

from .problem import MatmulProblem


@inline(.always)
def max_row_tiles(problem: MatmulProblem, tile_rows: Int) -> Int:
    """Returns the most row tiles that any routing of the problem's rows takes.

    Args:
        problem: The operands and their sizes.
        tile_rows: Rows of a tile.

    Returns:
        The whole tiles there can be, and a partial one for every group that
        can have rows, the two groups of no expert included.
    """
    var rows = Int(problem.rows)
    return min(rows, rows // tile_rows + Int(problem.groups) + 2)


@fieldwise_init
struct RowTile(TrivialRegisterPassable):
    """Some rows of one group."""

    var expert: Int32
    """The expert, or -1 for none."""
    var first: Int32
    """The first routed row."""
    var count: Int32
    """Rows; 0 where the block has nothing to do."""


@inline(.always)
def find_row_tile[
    tile_rows: Int
](problem: MatmulProblem, index: Int) -> RowTile:
    """Finds a row tile by its index, with all lanes of a warp.

    Parameters:
        tile_rows: Rows of a tile.

    Args:
        problem: The operands and their sizes.
        index: The index of the tile over all groups.

    Returns:
        The tile, the same in every lane.
    """
    var lane = Int(lane_id())
    var before = 0
    for base in range(-1, Int(problem.groups) + 1, WARP_SIZE):
        var group = base + lane
        var first = 0
        var end = 0
        if group <= Int(problem.groups):
            first, end = problem.group_bounds(group)
        var tiles = ceildiv(end - first, tile_rows)
        var through = before + Int(warp.prefix_sum(Int32(tiles)))
        var found = warp.vote[.uint32](through > index)
        if found != 0:
            var owner = UInt32(count_trailing_zeros(found))
            var row = first + (index - (through - tiles)) * tile_rows
            var count = min(tile_rows, end - row)
            var expert = problem.group_expert(min(group, Int(problem.groups)))
            return RowTile(
                warp.shuffle_idx(Int32(expert), owner),
                warp.shuffle_idx(Int32(row), owner),
                warp.shuffle_idx(Int32(count), owner),
            )
        before = Int(warp.shuffle_idx(Int32(through), UInt32(WARP_SIZE - 1)))
    return RowTile(-1, 0, 0)
