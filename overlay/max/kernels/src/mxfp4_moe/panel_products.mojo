# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A warp's products of a panel and a row tile, with `mma.sync`."""

from std.utils import StaticTuple

from max.gpu.compute.mma import mma
from max.gpu.sync import syncwarp

from .activation_rows import ActivationRows, LaneRows
from .expand_sm90 import expand_panel_words, fragment
from .part_sums import PanelSums
from .problem import MatmulProblem
from .stream_layout import StreamLayout, StreamShape
from .stream_schedule import Piece, UnitSchedule
from .tile_schedule import RowTile
from .weight_chunk import WeightChunk
from .weight_stream import WeightStream


@inline(.always)
def multiply_panel[
    shape: StreamShape, //, octets: Int
](
    problem: MatmulProblem,
    layout: StreamLayout[shape],
    schedule: UnitSchedule,
    activations: ActivationRows[shape],
    row_tile: RowTile,
    piece: Piece,
    mut weights: WeightStream[shape],
) -> PanelSums[octets]:
    """Multiplies the warp's next piece, with all of its lanes.

    Parameters:
        shape: How a thread block works.
        octets: Groups of eight rows that the row tile takes.

    Args:
        problem: The operands and their sizes.
        layout: Where things lie in shared memory.
        schedule: The row tiles.
        activations: The run's rows.
        row_tile: The row tile of the piece.
        piece: The piece.
        weights: The warp's packed weights.

    Returns:
        This lane's sums.
    """
    var lane_rows = StaticTuple[LaneRows, octets](
        fill=activations.lane_rows(row_tile, 0)
    )
    comptime for octet in range(1, octets):
        lane_rows[octet] = activations.lane_rows(row_tile, octet)
    comptime for octet in range(octets):
        lane_rows[octet].advance(piece.first_block)
    var products = PanelProducts[shape, octets](lane_rows)
    var left = piece.blocks
    while left > 0:
        var chunk = weights.chunk()
        var blocks = min(left, Int32(shape.chunk_blocks))
        products.add_chunk(chunk, blocks)
        left -= blocks
        # Every lane has read the chunk.
        syncwarp()
        weights.next_chunk(problem, layout, schedule)
    return products.totals()


struct PanelProducts[shape: StreamShape, octets: Int](TrivialRegisterPassable):
    """A lane's sums of products while they grow.

    Parameters:
        shape: How a thread block works.
        octets: Groups of eight rows.
    """

    comptime _CHAINS = max(4 // Self.octets, 1)
    """Sums of the same rows, so that no product waits for the one before it."""

    var sums: StaticTuple[SIMD[.float32, 4], Self._CHAINS * Self.octets]
    """The sums, those of a chain side by side."""
    var rows: StaticTuple[LaneRows, Self.octets]
    """What the lane reads of the next block's activations, for each octet."""

    @inline(.always)
    def __init__(out self, rows: StaticTuple[LaneRows, Self.octets]):
        """Begins where the rows do along K.

        Args:
            rows: What the lane reads of the activations, for each octet.
        """
        self.sums = type_of(self.sums)(fill=SIMD[.float32, 4](0))
        self.rows = rows

    @inline(.always)
    def add_chunk(mut self, chunk: WeightChunk[Self.shape], blocks: Int32):
        """Adds the products of a chunk.

        Args:
            chunk: The weights.
            blocks: Blocks that the chunk has.
        """
        if chunk.slot_has_large_scale():
            for block in range(blocks):
                self._add_block[0, two_steps=True](chunk, block)
        elif blocks == Int32(Self.shape.chunk_blocks):
            comptime for block in range(Self.shape.chunk_blocks):
                self._add_block[block, two_steps=False](chunk, 0)
        else:
            for block in range(blocks):
                self._add_block[0, two_steps=False](chunk, block)
        comptime for octet in range(Self.octets):
            self.rows[octet].advance(blocks)

    @inline(.always)
    def totals(self) -> PanelSums[Self.octets]:
        """Adds up the chains.

        Returns:
            The sums.
        """
        var totals = PanelSums[Self.octets](fill=SIMD[.float32, 4](0))
        comptime for octet in range(Self.octets):
            comptime for chain in range(Self._CHAINS):
                totals[octet] += self.sums[chain * Self.octets + octet]
        return totals

    @inline(.always)
    def _add_block[
        known: Int, *, two_steps: Bool
    ](mut self, chunk: WeightChunk[Self.shape], more: Int32):
        # The block is `known + more`, so that unrolled code has fixed offsets.
        var weights = expand_panel_words[two_steps](
            chunk.codes[known](more), chunk.both_scales[known](more)
        )
        comptime for octet in range(Self.octets):
            var pairs = self.rows[octet].load[known](more)
            comptime for half in range(2):
                comptime chain = (2 * known + half) % Self._CHAINS
                comptime at = chain * Self.octets + octet
                var sum = self.sums[at]
                mma(
                    sum,
                    fragment[half](weights[0], weights[1]),
                    pairs.slice[4, offset=4 * half](),
                    sum,
                )
                self.sums[at] = sum
