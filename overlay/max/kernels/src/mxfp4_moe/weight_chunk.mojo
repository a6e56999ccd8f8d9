# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A chunk of a panel in shared memory: packed elements, then scales."""

from std.memory import bitcast

from layout.tma_async import SharedMemBarrier
from max.gpu import WARP_SIZE, lane_id
from max.gpu.primitives import warp

from .bulk_copy import SharedPointer, bulk_copy
from .kernel_argument import TensorPointer
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .stream_layout import StreamShape, at_block


@fieldwise_init
struct WeightChunk[shape: StreamShape](TrivialRegisterPassable):
    """What a warp reads of a chunk.

    Parameters:
        shape: How a thread block works.
    """

    var start: SharedPointer[UInt8]
    """Where the chunk lies."""

    @inline(.always)
    def copy[
        *, once: Bool = False
    ](
        self,
        blocks: TensorPointer[UInt8],
        scales: TensorPointer[UInt8],
        first: Int32,
        count: Int32,
        barrier: SharedPointer[SharedMemBarrier],
    ):
        """Starts the two copies of neighbouring blocks, elements and scales.

        Parameters:
            once: Whether nobody reads the weights again.

        Args:
            blocks: The stack's packed elements, in panels.
            scales: Its scales.
            first: The first block, of the stack's.
            count: How many blocks.
            barrier: What counts their bytes, and was told to expect them.
        """
        bulk_copy[once=once](
            self.start,
            blocks.unsafe_offset(Int(first) * PANEL_BLOCK_BYTES),
            count * Int32(PANEL_BLOCK_BYTES),
            barrier,
        )
        bulk_copy[once=once](
            self.start.unsafe_offset(Self.shape.chunk_scales()),
            scales.unsafe_offset(Int(first) * PANEL_FEATURES),
            count * Int32(PANEL_FEATURES),
            barrier,
        )

    @inline(.always)
    def codes[known: Int](self, more: Int32) -> SIMD[.uint32, 2]:
        """Reads this lane's words of a block.

        Parameters:
            known: The block.

        Args:
            more: Blocks to add to that.

        Returns:
            Those of two neighbouring features.
        """
        return bitcast[.uint32, 2](
            at_block[PANEL_BLOCK_BYTES, known](
                self.start.unsafe_offset(Int(lane_id()) * 8), more
            ).unsafe_load[width=8, alignment=8](0)
        )

    @inline(.always)
    def scales[known: Int](self, more: Int32) -> SIMD[.uint8, 2]:
        """Reads the scales of these words.

        Parameters:
            known: The block.

        Args:
            more: Blocks to add to that.

        Returns:
            Those of the two features.
        """
        var scales = self._scales[known](more)
        # One by one: a load of both would have to be taken apart.
        return SIMD[.uint8, 2](scales[], scales[unsafe_offset=1])

    @inline(.always)
    def both_scales[known: Int](self, more: Int32) -> UInt16:
        """Reads the scales of these words at once.

        Parameters:
            known: The block.

        Args:
            more: Blocks to add to that.

        Returns:
            Those of the two features, the first's in the low byte.
        """
        return self._scales[known](more).unsafe_bitcast[UInt16]()[]

    @inline(.always)
    def _scales[known: Int](self, more: Int32) -> SharedPointer[UInt8]:
        return at_block[PANEL_FEATURES, known](
            self.start.unsafe_offset(
                Self.shape.chunk_scales() + Int(lane_id()) // 4 * 2
            ),
            more,
        )

    @inline(.always)
    def has_large_scale(self, blocks: Int32) -> Bool:
        """Looks for scale bytes over 128, with all lanes of the warp.

        Args:
            blocks: Blocks that the chunk has.

        Returns:
            Whether there may be any: bytes of 128 count as well.
        """
        comptime assert Self.shape.chunk_blocks <= WARP_SIZE
        var is_large = False
        if Int32(lane_id()) < blocks:
            is_large = self._block_has_large_scale(Int32(lane_id()))
        return warp.vote[.uint32](is_large) != 0

    @inline(.always)
    def slot_has_large_scale(self) -> Bool:
        """Looks for scale bytes over 128 where a whole chunk has scales, with all
        lanes of the warp. This takes fewer instructions.

        Returns:
            Whether there may be any: bytes of 128 count as well, and where the chunk
            is not whole, what was there before.
        """
        comptime assert Self.shape.chunk_blocks <= WARP_SIZE
        # Lanes without a block look at the last one.
        var block = min(Int32(lane_id()), Int32(Self.shape.chunk_blocks - 1))
        return warp.vote[.uint32](self._block_has_large_scale(block)) != 0

    @inline(.always)
    def _block_has_large_scale(self, block: Int32) -> Bool:
        # Only such bytes have their top bit set.
        var bits = bitcast[.uint32, 4](
            at_block[PANEL_FEATURES, 0](
                self.start.unsafe_offset(Self.shape.chunk_scales()), block
            ).unsafe_load[width=16, alignment=16](0)
        ).reduce_or()
        return bits & 0x8080_8080 != 0
