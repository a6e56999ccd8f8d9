# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A chunk of a panel in shared memory: packed elements, then scales."""

from std.memory import bitcast

from max.gpu import WARP_SIZE, lane_id

from .bulk_copy import SharedPointer
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .stream_layout import StreamShape

comptime Codes = SIMD[.uint32, 2]
"""A lane's words of one block: of two neighbouring features."""


@fieldwise_init
struct WeightChunk[shape: StreamShape](TrivialRegisterPassable):
    """What a warp reads of a chunk.

    Parameters:
        shape: How a thread block works.
    """

    var start: SharedPointer[UInt8]
    """Where the chunk lies."""

    @inline(.always)
    def codes(self) -> SharedPointer[UInt8]:
        """Finds this lane's words of the first block.

        Returns:
            Where they lie; those of the next are `PANEL_BLOCK_BYTES` behind.
        """
        return self.start.unsafe_offset(Int(lane_id()) * 8)

    @inline(.always)
    def scales(self) -> SharedPointer[UInt8]:
        """Finds this lane's scales of the first block.

        Returns:
            Where they lie; those of the next are `PANEL_FEATURES` behind.
        """
        return self.start.unsafe_offset(
            Self.shape.chunk_scales() + Int(lane_id()) // 4 * 2
        )

    @inline(.always)
    def has_large_scale(self, blocks: Int32) -> Bool:
        """Looks for scale bytes over 128 in this lane's share of the chunk.

        Args:
            blocks: Blocks that the chunk has.

        Returns:
            Whether there may be any: bytes of 128 count as well.
        """
        comptime assert Self.shape.chunk_blocks <= WARP_SIZE
        var bits = UInt32(0)
        if Int32(lane_id()) < blocks:
            # Only such bytes have their top bit set.
            bits = bitcast[.uint32, 4](
                at_block[PANEL_FEATURES](
                    self.start.unsafe_offset(Self.shape.chunk_scales()),
                    Int32(lane_id()),
                ).unsafe_load[width=16, alignment=16](0)
            ).reduce_or()
        return bits & 0x8080_8080 != 0


@inline(.always)
def load_codes(codes: SharedPointer[UInt8]) -> Codes:
    """Reads a lane's words of one block.

    Args:
        codes: Where they lie.

    Returns:
        The words.
    """
    return bitcast[.uint32, 2](codes.unsafe_load[width=8, alignment=8](0))


@inline(.always)
def at_block[
    bytes: Int
](start: SharedPointer[UInt8], block: Int32) -> SharedPointer[UInt8]:
    """Finds what belongs to a block.

    Parameters:
        bytes: Bytes of each block.

    Args:
        start: Where that of the first block lies.
        block: The block.

    Returns:
        Where its own lies.
    """
    # 32 bits suffice, and 64 of them take two instructions.
    return start.unsafe_offset(Int(block * Int32(bytes)))
