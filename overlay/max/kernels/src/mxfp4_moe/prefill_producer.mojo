# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Fills the stages of the prefill matmul, and what else its tiles need.

One thread has the copy engine fill stage after stage: a box of packed weights, and
one for each few rows. Three warps prepare operands, a tile ahead.
"""

from max.gpu.host.nvidia.tma import TMADescriptor
from max.gpu.primitives.grid_controls import wait_on_dependent_grids
from std.memory import Pointer

from .bulk_copy import SharedPointer, bulk_copy
from .epilogue import Epilogue
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES, WORD_BYTES
from .prefill_layout import (
    BOX_ROWS,
    PANEL_STEP_BYTES,
    ROW_BYTES,
    STEP_DEPTH,
    PrefillLayout,
    PrefillOperands,
    PrefillShape,
    row_boxes,
    stage_bytes,
)
from .prefill_operands import OPERAND_THREADS
from .prefill_ring import OperandSets, Ring
from .prefill_schedule import PrefillTile
from .problem import MatmulProblem
from .tensor_copy import tensor_copy


struct TileCopies[
    weights_origin: ImmOrigin, rows_origin: ImmOrigin, //, shape: PrefillShape
](TrivialRegisterPassable):
    """One thread's copies of all steps of one tile after the other.

    Elements past K arrive as zeros. Rows past a tile's are those of the next, and
    so are panels past the last: their sums are never stored.

    Parameters:
        weights_origin: Where the tensor map of the weights is from.
        rows_origin: Where that of the rows is from.
        shape: How the block works.
    """

    var problem: MatmulProblem
    """The operands and their sizes."""
    var weights: Pointer[TMADescriptor, Self.weights_origin]
    """Packed weights, in boxes of a step's panels."""
    var rows: Pointer[TMADescriptor, Self.rows_origin]
    """Activations in routed order, in boxes of `BOX_ROWS` rows."""
    var steps: Int32
    """Steps of a tile."""
    var stages: SharedPointer[UInt8]
    """Where the first stage starts."""
    var ring: Ring
    """The stages."""

    @inline(.always)
    def __init__(
        out self,
        problem: MatmulProblem,
        weights: Pointer[TMADescriptor, Self.weights_origin],
        rows: Pointer[TMADescriptor, Self.rows_origin],
        steps: Int32,
        stages: SharedPointer[UInt8],
        ring: Ring,
    ):
        """Begins with the first stage.

        Args:
            problem: The operands and their sizes.
            weights: Packed weights, in boxes of a step's panels.
            rows: Activations in routed order, in boxes of `BOX_ROWS` rows.
            steps: Steps of a tile.
            stages: Where the first stage starts.
            ring: The stages.
        """
        self.problem = problem
        self.weights = weights
        self.rows = rows
        self.steps = steps
        self.stages = stages
        self.ring = ring

    @inline(.always)
    def copy_first(mut self, tile: PrefillTile):
        """Copies the block's first tile. Its weights do not wait for the kernel
        before this one, as far as there are stages for them.

        Args:
            tile: The tile.
        """
        var ahead = min(self.ring.stages, self.steps)
        var rows_ring = self.ring
        for step in range(ahead):
            self._copy_weights(tile, step)
            self.ring.advance()
        wait_on_dependent_grids()
        for step in range(ahead):
            self._copy_rows(tile, step, rows_ring)
            rows_ring.advance()
        self._copy_from(tile, ahead)

    @inline(.always)
    def copy(mut self, tile: PrefillTile):
        """Copies a tile.

        Args:
            tile: The tile.
        """
        self._copy_from(tile, 0)

    @inline(.always)
    def _copy_from(mut self, tile: PrefillTile, first_step: Int32):
        for step in range(first_step, self.steps):
            self._copy_weights(tile, step)
            self._copy_rows(tile, step, self.ring)
            self.ring.advance()

    @inline(.always)
    def _copy_weights(self, tile: PrefillTile, step: Int32):
        # All bytes of the stage are announced with its first.
        self.ring.wait_empty()
        self.ring.full()[].expect_bytes(stage_bytes[Self.shape](tile.row_units))
        tensor_copy(
            self._stage(self.ring),
            self.weights,
            (tile.expert * self.problem.features + tile.first_feature)
            // Int32(PANEL_FEATURES),
            step * Int32(PANEL_STEP_BYTES // WORD_BYTES),
            self.ring.full(),
        )

    @inline(.always)
    def _copy_rows(self, tile: PrefillTile, step: Int32, ring: Ring):
        for box in range(row_boxes(tile.row_units)):
            tensor_copy(
                self._stage(ring).unsafe_offset(
                    Self.shape.weight_bytes() + Int(box) * BOX_ROWS * ROW_BYTES
                ),
                self.rows,
                tile.first_row + box * Int32(BOX_ROWS),
                step * Int32(STEP_DEPTH),
                ring.full(),
            )

    @inline(.always)
    def _stage(self, ring: Ring) -> SharedPointer[UInt8]:
        return self.stages.unsafe_offset(Int(ring.offset))


@inline(.always)
def prepare_operands[
    EpilogueType: Epilogue, //, shape: PrefillShape
](
    problem: MatmulProblem,
    layout: PrefillLayout[shape],
    shared: SharedPointer[UInt8],
    tile: PrefillTile,
    first: Bool,
    epilogue: EpilogueType,
    mut sets: OperandSets,
):
    """Fetches a tile's scales and other operands, with all preparing threads.

    Parameters:
        EpilogueType: What happens to each pair of sums.
        shape: How the block works.

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
        min(Int32(shape.tile_features()), problem.features - tile.first_feature)
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
    var operands = PrefillOperands[shape](
        shared.unsafe_offset(Int(layout.operands(sets.set)))
    )
    operands.fill(tile, problem.features, epilogue)
    sets.wait_scales()
    operands.note_large_scales(scales, bytes)
    sets.hand_over()
    sets.advance()
