# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Fills the stages of the prefill matmul.

One warpgroup copies with `cp.async`, 16 bytes a thread: Hopper's tensor copies
cannot gather rows, and these can.
"""

from std.utils import StaticTuple

from max.gpu import thread_idx
from max.gpu.globals import WARPGROUP_SIZE
from max.gpu.memory import async_copy

from .bulk_copy import SharedPointer
from .epilogue import Epilogue
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_layout import (
    ROW_BYTES,
    PANEL_STEP_BYTES,
    STEP_BLOCKS,
    TILE_FEATURES,
    TILE_PANELS,
    TILE_ROWS,
    WEIGHTS,
    PrefillOperands,
    PrefillLayout,
)
from .prefill_ring import COPIES_AHEAD, FillingRing
from .prefill_schedule import PrefillTile
from .prefill_sums import ROW_UNIT
from .problem import MatmulProblem, RowMap

comptime _UNIT = 16
"""Bytes of a copy."""

comptime _ROW_UNITS = ROW_BYTES // _UNIT
comptime _PANEL_UNITS = PANEL_STEP_BYTES // _UNIT
comptime _BLOCK_UNITS = PANEL_BLOCK_BYTES // _UNIT
comptime _ROWS_A_PASS = WARPGROUP_SIZE // _ROW_UNITS
comptime _PANELS_A_PASS = WARPGROUP_SIZE // _PANEL_UNITS
comptime _PASSES = TILE_ROWS // _ROWS_A_PASS
comptime _WEIGHT_PASSES = TILE_PANELS // _PANELS_A_PASS


@inline(.always)
def copy_tile[
    RowMapType: RowMap, EpilogueType: Epilogue
](
    problem: MatmulProblem,
    rows: RowMapType,
    layout: PrefillLayout,
    shared: SharedPointer[UInt8],
    tile: PrefillTile,
    set: Int32,
    epilogue: EpilogueType,
    mut ring: FillingRing,
):
    """Copies all steps of a tile, with all threads of the producer.

    Elements past K arrive as zeros. Rows past the tile's repeat its last, and
    panels past the last repeat that one: their sums are never stored.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        EpilogueType: What happens to each pair of sums.

    Args:
        problem: The operands and their sizes.
        rows: Maps a routed row to its activation row.
        layout: Where things lie in shared memory.
        shared: The block's shared memory.
        tile: The tile.
        set: Where its scales and other operands go.
        epilogue: Reads these.
        ring: The stages.
    """
    comptime assert _ROWS_A_PASS == ROW_UNIT, "a pass copies a unit of rows"
    var thread = Int32(thread_idx.x) % Int32(WARPGROUP_SIZE)
    var depth = problem.depth
    var activations = problem.activations.unsafe_bitcast[
        UInt8
    ]().unsafe_address_space_cast[.GLOBAL]()
    var expert_feature = Int(tile.expert) * Int(problem.features)
    var blocks = problem.blocks.unsafe_address_space_cast[
        .GLOBAL
    ]().unsafe_offset(expert_feature * Int(depth // 2))

    # Sources in units, as 32 bits: an address then is one multiplication and
    # addition, which the unit that expands weights takes no part in.
    var row = thread // Int32(_ROW_UNITS)
    var unit = thread % Int32(_ROW_UNITS)
    var sources = StaticTuple[UInt32, _PASSES](fill=0)
    comptime for i in range(_PASSES):
        var at = min(row + Int32(i * _ROWS_A_PASS), tile.rows - 1)
        sources[i] = UInt32(rows.source_row(Int(tile.first_row + at))) * UInt32(
            2 * depth // Int32(_UNIT)
        ) + UInt32(unit)
    # Where the swizzle puts this thread's unit. It repeats every 8 rows.
    var row_target = Int(row) * ROW_BYTES + Int(unit ^ (row % 8)) * _UNIT

    var panel_unit = thread % Int32(_PANEL_UNITS)
    var weight_sources = StaticTuple[UInt32, _WEIGHT_PASSES](fill=0)
    comptime for i in range(_WEIGHT_PASSES):
        var panel = min(
            tile.first_feature // Int32(PANEL_FEATURES)
            + thread // Int32(_PANEL_UNITS)
            + Int32(i * _PANELS_A_PASS),
            problem.features // Int32(PANEL_FEATURES) - 1,
        )
        weight_sources[i] = UInt32(
            panel * layout.row_blocks * Int32(_BLOCK_UNITS) + panel_unit
        )

    var operands = PrefillOperands(
        shared.unsafe_offset(Int(layout.operands(set)))
    )
    for step in range(layout.steps):
        ring.wait_empty()
        var stage = shared.unsafe_offset(ring.offset())
        if step == 0:
            _copy_scales(problem, layout, shared, tile, set)
            operands.fill(tile, problem.features, epilogue)
        # Of the last step, half may lie past K.
        var bytes = Int32(_UNIT)
        if (
            step * Int32(STEP_BLOCKS) + panel_unit // Int32(_BLOCK_UNITS)
            >= layout.row_blocks
        ):
            bytes = 0
        comptime for i in range(_WEIGHT_PASSES):
            async_copy[_UNIT, fill=UInt8(0)](
                blocks.unsafe_offset(Int(weight_sources[i]) * _UNIT),
                stage.unsafe_offset(
                    WEIGHTS + Int(thread) * _UNIT + i * WARPGROUP_SIZE * _UNIT
                ),
                bytes,
            )
        blocks = blocks.unsafe_offset(PANEL_STEP_BYTES)
        bytes = Int32(_UNIT)
        if step * Int32(ROW_BYTES) + unit * Int32(_UNIT) >= 2 * depth:
            bytes = 0
        comptime for i in range(_PASSES):
            if Int32(i) < tile.row_units:
                async_copy[_UNIT, fill=UInt8(0)](
                    activations.unsafe_offset(Int(sources[i]) * _UNIT),
                    stage.unsafe_offset(
                        row_target + i * _ROWS_A_PASS * ROW_BYTES
                    ),
                    bytes,
                )
        activations = activations.unsafe_offset(ROW_BYTES)
        ring.await_older()
        if step == Int32(COPIES_AHEAD):
            operands.note_large_scales(
                shared.unsafe_offset(Int(layout.scales(set))),
                _scale_bytes(problem, layout, tile),
            )
        ring.hand_over()


@inline(.always)
def _copy_scales(
    problem: MatmulProblem,
    layout: PrefillLayout,
    shared: SharedPointer[UInt8],
    tile: PrefillTile,
    set: Int32,
):
    # All scales of the tile's features, which lie together.
    var features = Int(problem.features)
    var scales = problem.scales.unsafe_address_space_cast[
        .GLOBAL
    ]().unsafe_offset(
        (Int(tile.expert) * features + Int(tile.first_feature))
        * Int(layout.row_blocks)
    )
    var target = shared.unsafe_offset(Int(layout.scales(set)))
    for at in range(
        Int32(thread_idx.x) % Int32(WARPGROUP_SIZE) * Int32(_UNIT),
        _scale_bytes(problem, layout, tile),
        Int32(WARPGROUP_SIZE * _UNIT),
    ):
        async_copy[_UNIT](
            scales.unsafe_offset(Int(at)), target.unsafe_offset(Int(at))
        )


@inline(.always)
def _scale_bytes(
    problem: MatmulProblem, layout: PrefillLayout, tile: PrefillTile
) -> Int32:
    return (
        min(Int32(TILE_FEATURES), problem.features - tile.first_feature)
        * layout.row_blocks
    )
