# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A run of row tiles' BF16 activations over all of K, in shared memory.

Eight neighbouring elements are a unit. A warp reads, at each half step, unit after unit of its lanes' own rows and blocks: 32 units at a time,
which lie side by side. Within a unit elements are in the order in which
`expand_word` expands weights.
"""

from std.memory import bitcast

from max.gpu import WARP_SIZE, thread_idx
from max.gpu.sync import barrier


from .expand_sm90 import pair_activations
from .problem import MatmulProblem, RowMap
from .stream_layout import (
    HALF_DEPTH,
    SharedPointer,
    StreamLayout,
    StreamShape,
)
from .stream_schedule import TileRun

comptime UNIT_ELEMENTS = 8
"""BF16 elements of a unit: 16 bytes, and one word of packed codes."""

comptime _UNITS_PER_HALF = HALF_DEPTH // UNIT_ELEMENTS


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
    var thread = Int(thread_idx.x)
    # The previous run's last products are done.
    barrier()
    if thread < run.rows:
        sources[unsafe_offset=thread] = Int32(
            rows.source_row(run.first_row + thread)
        )
    barrier()
    var depth = Int(problem.depth)
    var row_units = layout.halves() * _UNITS_PER_HALF
    for i in range(thread, row_units * run.rows, shape.threads()):
        var row, unit = divmod(i, row_units)
        var elements = SIMD[.uint32, 4](0)
        # Elements past K are zeros, since a NaN would meet zero weights.
        if unit * UNIT_ELEMENTS < depth:
            elements = pair_activations(
                bitcast[.uint32, 4](
                    problem.activations.unsafe_address_space_cast[
                        .GLOBAL
                    ]().unsafe_load[width=UNIT_ELEMENTS, alignment=16](
                        Int(sources[unsafe_offset=row]) * depth
                        + unit * UNIT_ELEMENTS
                    )
                )
            )
        var half, unit_of_half = divmod(unit, _UNITS_PER_HALF)
        var block, unit_of_block = divmod(unit_of_half, 4)
        var octet, row_of_octet = divmod(row, 8)
        target.unsafe_store[alignment=16](
            (
                activation_unit[shape.row_octets](half, octet, unit_of_block)
                + row_of_octet * 4
                + block
            )
            * 4,
            elements,
        )
    barrier()


@inline(.always)
def activation_unit[row_octets: Int](half: Int, octet: Int, unit: Int) -> Int:
    """Numbers the units as lane 0 reads them.

    Parameters:
        row_octets: Groups of eight rows of a row tile.

    Args:
        half: The half step along K.
        octet: Which eight rows.
        unit: Which of a block's four units.

    Returns:
        The number of the unit.
    """
    return ((half * row_octets + octet) * 4 + unit) * WARP_SIZE
