# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How the warps of a block tell each other a slice's gate and up sums.

Each warp leaves its part of K, and goes on with the next slice's first products.
When it comes back for this slice's activations, the others have mostly left theirs
too, so that nobody waits long. Every warp adds the parts by itself: that is little
work, and asks for no second barrier.
"""

from layout.tma_async import SharedMemBarrier
from max.gpu import WARP_SIZE, lane_id, thread_idx, warp_id
from max.gpu.compute.mma import ld_matrix
from max.gpu.memory import fence_mbarrier_init
from max.gpu.sync import syncwarp

from .bulk_copy import SharedPointer
from .epilogue import clamped_swiglu
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_FEATURES
from .raw_products import ENLARGEMENT
from .slice_layout import (
    EXCHANGE_BUFFERS,
    EXCHANGE_FLOATS,
    PARTS,
    SHAPE,
    SliceLayout,
)
from .slice_schedule import TILE_ROWS
from .subnormals import round_to_bf16
from .warp_lanes import warp_here

comptime _PANEL_SUMS = TILE_ROWS * PANEL_FEATURES
# Sums of a panel and a row tile.

comptime _ROW_LANES = WARP_SIZE // 4
# Lanes that leave the sums of a row.


struct SliceExchange[rows: Int](TrivialRegisterPassable):
    """A ring of buffers for the parts of gate and up.

    A warp that leaves its part of a slice has seen all parts of the one before it.
    Who left those had read the ones two slices before: so with two buffers, none
    needs a barrier for being free.

    Parameters:
        rows: Rows that a row tile can have.
    """

    var parts: SharedPointer[Float32]
    """The parts of each buffer: of each panel, part and row 16 features."""
    var barriers: SharedPointer[SharedMemBarrier]
    """What counts the lanes that left a buffer's parts."""
    var gated: SharedPointer[UInt8]
    """The warp's own room for activations."""
    var no_row: SharedPointer[UInt8]
    """Zeros."""

    @inline(.always)
    def __init__(out self, layout: SliceLayout, shared: SharedPointer[UInt8]):
        """Finds the buffers.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
        """
        self.parts = shared.unsafe_offset(
            SliceLayout.exchange()
        ).unsafe_bitcast[Float32]()
        self.barriers = shared.unsafe_offset(
            SliceLayout.exchange_barriers()
        ).unsafe_bitcast[SharedMemBarrier]()
        self.gated = shared.unsafe_offset(
            SliceLayout.gated_rows(Int(warp_id()))
        )
        self.no_row = shared.unsafe_offset(layout.no_row())

    @inline(.always)
    def init_barriers(self):
        """Prepares the barriers, with all threads of the block, who meet after it.
        """
        var thread = Int(thread_idx.x)
        if thread < EXCHANGE_BUFFERS:
            self.barriers[unsafe_offset=thread].init(
                Int32(SHAPE.warps * Self.rows * _ROW_LANES)
            )
            fence_mbarrier_init()

    @inline(.always)
    def keep(
        self,
        number: UInt32,
        sums: SIMD[.float32, 2],
    ):
        """Leaves the warp's part of a slice.

        Args:
            number: The slice's number among the block's.
            sums: The lane's sums, as `PartProducts.totals` returns them.
        """
        comptime lanes = 4 // Self.rows
        var lane = Int32(lane_id())
        if lane % Int32(lanes) == 0:
            var buffer = Int32(number % EXCHANGE_BUFFERS)
            self.parts.unsafe_store[alignment=8](
                Int(
                    buffer * Int32(EXCHANGE_FLOATS)
                    + warp_here() * Int32(_PANEL_SUMS)
                    + lane % 4 // Int32(lanes) * Int32(PANEL_FEATURES)
                    + lane // 4 * 2
                ),
                sums,
            )
            # Each lane for what it stored.
            _ = self.barriers[unsafe_offset=Int(buffer)].arrive()

    @inline(.always)
    def activations[
        alpha: Float32, limit: Float32
    ](
        self,
        number: UInt32,
        tile_rows: Int32,
        biases: SIMD[.float32, 2],
    ) -> SIMD[.bfloat16, 8]:
        """Waits for all parts, adds them and the biases, and applies SwiGLU.

        Parameters:
            alpha: The sigmoid's slope.
            limit: The clamp.

        Args:
            number: The slice's number among the block's.
            tile_rows: Rows of the slice's row tile.
            biases: Gate's and up's, for the feature that has the lane's number.

        Returns:
            The lane's four pairs of the activations, enlarged, all columns of a
            row being the same.
        """
        comptime pairs = PANEL_FEATURES // 2
        comptime assert BLOCK_ELEMENTS == WARP_SIZE
        var lane = Int32(lane_id())
        var buffer = Int32(number % EXCHANGE_BUFFERS)
        var place = (
            buffer * Int32(EXCHANGE_FLOATS)
            + lane // Int32(pairs) * Int32(PARTS * _PANEL_SUMS)
            + lane % Int32(pairs) * 2
        )
        self.barriers[unsafe_offset=Int(buffer)].wait(
            number // EXCHANGE_BUFFERS % 2
        )
        # All lanes have read the last slice's.
        syncwarp()
        comptime for row in range(Self.rows):
            if row == 0 or Int32(row) < tile_rows:
                # Always in the same order.
                var sum = biases
                comptime for part in range(PARTS):
                    sum += self.parts.unsafe_load[width=2, alignment=8](
                        Int(place) + row * PANEL_FEATURES + part * _PANEL_SUMS
                    )
                self._row(Int32(row)).unsafe_bitcast[BFloat16]()[
                    unsafe_offset=Int(lane)
                ] = round_to_bf16(
                    ENLARGEMENT * clamped_swiglu[alpha, limit](sum[0], sum[1])
                )
        syncwarp()
        var row = lane % 8 // Int32(8 // Self.rows)
        var start = self._row(row)
        comptime if Self.rows > 1:
            if row >= tile_rows:
                start = self.no_row
        return ld_matrix[8](
            start.unsafe_offset(Int(lane // 8 * 16)).unsafe_bitcast[BFloat16]()
        )

    @inline(.always)
    def _row(self, row: Int32) -> SharedPointer[UInt8]:
        return self.gated.unsafe_offset(
            Int(row * Int32(SliceLayout.gated_row_bytes()))
        )
