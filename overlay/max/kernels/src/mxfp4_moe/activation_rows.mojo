# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A run of row tiles' BF16 activations over all of K, in shared memory.

They lie in the order of fragments: for each MXFP4 block along K and each eight
rows, a lane's 16 bytes side by side with the other lanes'. These are the four
pairs of neighbouring elements that meet the four pairs of its words of weights.
"""

from std.memory import bitcast

from max.gpu import WARP_SIZE, thread_idx
from max.gpu.sync import barrier

from .bulk_copy import SharedPointer
from .mxfp4 import BLOCK_ELEMENTS
from .problem import MatmulProblem, RowMap
from .stream_layout import StreamLayout, StreamShape
from .stream_schedule import TileRun

comptime FRAGMENT_BYTES = 16
"""A lane's activations of eight rows and one block."""

comptime _UNITS = 4
# Eight elements along K, of which each lane of a quad gets a pair.


@inline(.always)
def load_activations[
    RowMapType: RowMap, shape: StreamShape
](
    problem: MatmulProblem,
    rows: RowMapType,
    layout: StreamLayout[shape],
    shared: SharedPointer[UInt8],
    run: TileRun,
):
    """Replaces the activations in shared memory, with all threads of the block.

    The places of rows that the run does not have are left as they are: a row
    only reaches its own column of sums.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        shape: How a thread block works.

    Args:
        problem: The operands and their sizes.
        rows: Maps a routed row to its activation row.
        layout: Where things lie in shared memory.
        shared: The block's shared memory.
        run: The rows.
    """
    var target = shared.unsafe_offset(layout.activations()).unsafe_bitcast[
        UInt32
    ]()
    var sources = shared.unsafe_offset(layout.sources()).unsafe_bitcast[Int32]()
    var thread = Int32(thread_idx.x)
    # The previous run's last products are done.
    barrier()
    if thread < run.rows:
        sources[unsafe_offset=Int(thread)] = Int32(
            rows.source_row(Int(run.first_row + thread))
        )
    barrier()
    var depth = Int(problem.depth)
    var activations = problem.activations.unsafe_address_space_cast[.GLOBAL]()
    var run_rows = UInt32(run.rows)
    var end = UInt32(layout.row_blocks()) * run_rows
    # Rows first: what neighbouring threads store then lies side by side.
    for i in range(UInt32(thread), end, UInt32(shape.threads())):
        var block = i // run_rows
        var row = i - block * run_rows
        var source = activations.unsafe_offset(
            Int(sources[unsafe_offset=Int(row)]) * depth
            + Int(block) * BLOCK_ELEMENTS
        )
        var units = SIMD[.uint32, 4 * _UNITS](0)
        comptime for unit in range(_UNITS):
            var pairs = bitcast[.uint32, 4](
                source.unsafe_load[width=8, alignment=16](8 * unit)
            )
            comptime for quarter in range(4):
                units[quarter * _UNITS + unit] = pairs[quarter]
        var fragment = target.unsafe_offset(
            Int(fragment_index[shape.row_octets](block, row // 8) + row % 8 * 4)
            * 4
        )
        comptime for quarter in range(4):
            fragment.unsafe_store[alignment=16](
                4 * quarter,
                units.slice[_UNITS, offset=quarter * _UNITS](),
            )
    barrier()


@inline(.always)
def fragment_index[row_octets: Int](block: UInt32, octet: UInt32) -> UInt32:
    """Numbers the fragments of lane 0.

    Parameters:
        row_octets: Groups of eight rows of a row tile.

    Args:
        block: The block along K.
        octet: Which eight rows.

    Returns:
        The number of the fragment, of `FRAGMENT_BYTES`.
    """
    return (block * UInt32(row_octets) + octet) * UInt32(WARP_SIZE)
