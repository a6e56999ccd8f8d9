# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A warp's products of gate and up rows with a slice's tokens.

`mma.sync` multiplies with eight columns, and a tile has one row or two. So columns
stand for blocks along K as well: those of a row hold the activations of as many
neighbouring blocks, and of a block's product the lanes take the column that is its
own. What a lane adds up has one scale then, that of a feature and a block, and it
is the sums that are scaled: weights go to the tensor core as they are unpacked,
`value * 2^-126`.
"""

from max.gpu import lane_id
from max.gpu.compute.mma import ld_matrix
from max.gpu.primitives.warp import shuffle_xor
from max.gpu.sync import syncwarp

from .bulk_copy import SharedPointer
from .layer_problem import LayerProblem
from .raw_products import add_scaled, raw_product
from .slice_layout import SHAPE, TOKEN_BLOCK_BYTES, SliceLayout
from .slice_schedule import SliceSchedule
from .slice_stream import SliceStream
from .warp_lanes import warp_here
from .weight_chunk import WeightChunk


struct PartProducts[rows: Int](TrivialRegisterPassable):
    """A lane's sums of the warp's part of a panel, while they grow.

    Parameters:
        rows: Rows that a row tile can have.
    """

    comptime GROUP = 8 // Self.rows
    """Blocks that columns stand for at once."""

    var sums: SIMD[.float32, 2]
    """Of two features."""
    var row: SharedPointer[UInt8]
    """Where the lane's row of activations lies, for `ldmatrix`."""
    var left: Int32
    """Blocks that are not multiplied yet."""

    @inline(.always)
    def __init__(
        out self,
        layout: SliceLayout,
        shared: SharedPointer[UInt8],
        schedule: SliceSchedule,
        tile: Int32,
        blocks: Int32,
    ):
        """Begins with nothing added.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            schedule: The row tiles.
            tile: The slice's row tile.
            blocks: Blocks of the warp's part.
        """
        var lane = Int32(lane_id())
        var row = lane % 8 // Int32(Self.GROUP)
        var start = layout.no_row()
        if row < schedule.rows_of[Self.rows](tile):
            start = layout.token_row(schedule.token_of[Self.rows](tile, row))
        self.row = shared.unsafe_offset(
            start
            + Int(
                layout.panel_part(warp_here()).first * Int32(TOKEN_BLOCK_BYTES)
                + lane // 8 * 16
            )
        )
        self.sums = 0
        self.left = blocks

    @inline(.always)
    def add_next_chunk(
        mut self,
        layer: LayerProblem,
        layout: SliceLayout,
        schedule: SliceSchedule,
        mut weights: SliceStream,
    ):
        """Multiplies the warp's next chunk, and starts copying another.

        Args:
            layer: The operands and their sizes.
            layout: How panels are cut.
            schedule: The row tiles.
            weights: The warp's packed weights.
        """
        self._add_chunk(
            weights.chunk_here(), min(self.left, Int32(SHAPE.chunk_blocks))
        )
        self.left -= Int32(SHAPE.chunk_blocks)
        # Every lane has read the chunk.
        syncwarp()
        weights.next_chunk(layer, layout, schedule)

    @inline(.always)
    def _add_chunk(mut self, chunk: WeightChunk[SHAPE], blocks: Int32):
        comptime chunk_blocks = SHAPE.chunk_blocks
        comptime assert chunk_blocks >= Self.GROUP
        var sums = self.sums
        var large = blocks < Int32(chunk_blocks)
        if not large:
            # This lane's block of each group.
            var own = self.row.unsafe_offset(
                Int(
                    Int32(lane_id())
                    % Int32(Self.GROUP)
                    * Int32(TOKEN_BLOCK_BYTES)
                )
            )
            comptime for start in range(0, chunk_blocks, Self.GROUP):
                # The last group may begin in the one before it, whose blocks it
                # leaves out.
                comptime from_block = min(start, chunk_blocks - Self.GROUP)
                self._add_group[from_block, start - from_block](chunk, own)
            large = chunk.has_large_scale(blocks)
        if large:
            self.sums = sums
            for block in range(blocks):
                self._add_block(chunk, block)
        self.row = self.row.unsafe_offset(
            Int(blocks * Int32(TOKEN_BLOCK_BYTES))
        )

    @inline(.always)
    def totals(self) -> SIMD[.float32, 2]:
        """Adds up what the lanes of a row have.

        Returns:
            The sums of two features of a panel and of one row: lane `4 * f + q` has
            features `2 * f` and `2 * f + 1`, and row `q * rows // 4`.
        """
        var totals = self.sums
        comptime if Self.rows == 1:
            totals += SIMD[.float32, 2](
                shuffle_xor(totals[0], 2), shuffle_xor(totals[1], 2)
            )
        return totals + SIMD[.float32, 2](
            shuffle_xor(totals[0], 1), shuffle_xor(totals[1], 1)
        )

    @inline(.always)
    def _add_group[
        start: Int, skipped: Int
    ](mut self, chunk: WeightChunk[SHAPE], own: SharedPointer[UInt8]):
        # Every lane has the scales of two blocks.
        var lane_pair = Int32(lane_id()) % Int32(Self.GROUP // 2)
        var activations = ld_matrix[8](
            own.unsafe_offset(start * TOKEN_BLOCK_BYTES).unsafe_bitcast[
                BFloat16
            ]()
        )
        var even = chunk.scales[start](2 * lane_pair)
        var odd = chunk.scales[start + 1](2 * lane_pair)
        comptime for block in range(skipped, Self.GROUP):
            comptime column = block % 2
            var product = raw_product(
                chunk.codes[start + block](0), activations
            )
            add_scaled[two_steps=False](
                self.sums,
                odd if column == 1 else even,
                SIMD[.float32, 2](product[column], product[2 + column]),
                lane_pair == Int32(block // 2),
            )

    @inline(.always)
    def _add_block(mut self, chunk: WeightChunk[SHAPE], block: Int32):
        # All columns of a row stand for the one block.
        var activations = ld_matrix[8](
            self.row.unsafe_offset(
                Int(block * Int32(TOKEN_BLOCK_BYTES))
            ).unsafe_bitcast[BFloat16]()
        )
        var product = raw_product(chunk.codes[0](block), activations)
        add_scaled[two_steps=True](
            self.sums,
            chunk.scales[0](block),
            SIMD[.float32, 2](product[0], product[2]),
            Int32(lane_id()) % Int32(Self.GROUP // 2) == 0,
        )
