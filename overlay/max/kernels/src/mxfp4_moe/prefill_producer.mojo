# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Fills the stages of the prefill matmul, and what else its tiles need.

One thread has the copy engine fill stage after stage: a box of packed weights, and
one for each unit of rows. Three warps prepare operands, a tile ahead.
"""

from max.gpu.host.nvidia.tma import TMADescriptor
from std.memory import Pointer

from .bulk_copy import SharedPointer, bulk_copy
from .epilogue import Epilogue
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_layout import (
    PANEL_STEP_BYTES,
    ROW_BYTES,
    STEP_DEPTH,
    TILE_FEATURES,
    WEIGHT_BYTES,
    PrefillLayout,
    PrefillOperands,
    stage_bytes,
)
from .prefill_operands import OPERAND_THREADS
from .prefill_ring import OperandSets, Ring
from .prefill_schedule import PrefillTile
from .prefill_sums import ROW_UNIT
from .problem import MatmulProblem
from .tensor_copy import tensor_copy

comptime WORD_BYTES = 4
"""Bytes of an element of the matrix of packed weights, which has a panel a row."""


@inline(.always)
def copy_tile(
    problem: MatmulProblem,
    weights: Pointer[TMADescriptor, _],
    rows: Pointer[TMADescriptor, _],
    steps: Int32,
    stages: SharedPointer[UInt8],
    tile: PrefillTile,
    mut ring: Ring,
):
    """Copies all steps of a tile, with one thread.

    Elements past K arrive as zeros. Rows past the tile's are those of the next,
    and so are panels past the last: their sums are never stored.

    Args:
        problem: The operands and their sizes.
        weights: Packed weights, in boxes of a step's panels.
        rows: Activations in routed order, in boxes of `ROW_UNIT` rows.
        steps: Steps of a tile.
        stages: Where the first stage starts.
        tile: The tile.
        ring: The stages.
    """
    var panel = (tile.expert * problem.features + tile.first_feature) // Int32(
        PANEL_FEATURES
    )
    for step in range(steps):
        ring.wait_empty()
        var barrier = ring.full()
        barrier[].expect_bytes(stage_bytes(tile.row_units))
        var stage = stages.unsafe_offset(Int(ring.offset))
        tensor_copy(
            stage,
            weights,
            panel,
            step * Int32(PANEL_STEP_BYTES // WORD_BYTES),
            barrier,
        )
        for unit in range(tile.row_units):
            tensor_copy(
                stage.unsafe_offset(
                    WEIGHT_BYTES + Int(unit) * ROW_UNIT * ROW_BYTES
                ),
                rows,
                tile.first_row + unit * Int32(ROW_UNIT),
                step * Int32(STEP_DEPTH),
                barrier,
            )
        ring.advance()


@inline(.always)
def prepare_operands[
    EpilogueType: Epilogue
](
    problem: MatmulProblem,
    layout: PrefillLayout,
    shared: SharedPointer[UInt8],
    tile: PrefillTile,
    first: Bool,
    epilogue: EpilogueType,
    mut sets: OperandSets,
):
    """Fetches a tile's scales and other operands, with all preparing threads.

    Parameters:
        EpilogueType: What happens to each pair of sums.

    Args:
        problem: The operands and their sizes.
        layout: Where things lie in shared memory.
        shared: The block's shared memory.
        tile: The tile.
        first: Whether this is the first of the threads.
        epilogue: Reads the operands of rows and features.
        sets: The sets of operands.
    """
    # All of the scales of a tile's features, which lie together.
    var bytes = (
        min(Int32(TILE_FEATURES), problem.features - tile.first_feature)
        * layout.row_blocks
    )
    var scales = shared.unsafe_offset(Int(layout.scales(sets.set)))
    sets.wait_free()
    if first:
        sets.scales()[].expect_bytes(bytes)
        bulk_copy(
            scales,
            problem.scales.unsafe_offset(
                (
                    Int(tile.expert) * Int(problem.features)
                    + Int(tile.first_feature)
                )
                * Int(layout.row_blocks)
            ),
            bytes,
            sets.scales(),
        )
    var operands = PrefillOperands(
        shared.unsafe_offset(Int(layout.operands(sets.set)))
    )
    operands.fill(tile, problem.features, epilogue)
    sets.wait_scales()
    operands.note_large_scales(scales, bytes)
    sets.hand_over()
    sets.advance()
