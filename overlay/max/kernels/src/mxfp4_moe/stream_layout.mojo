# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where the streaming matmul keeps things in shared memory."""

from std.math import align_up, ceildiv
from std.sys import size_of

from layout.tma_async import SharedMemBarrier
from max.gpu import WARP_SIZE, thread_idx
from max.gpu.memory import fence_mbarrier_init

from .bulk_copy import SharedPointer
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .problem import MatmulProblem
from .part_sums import PartSums
from .stream_schedule import UnitSchedule

comptime _ALIGNMENT = 16
"""What the widest loads and all copies ask."""

comptime BANKS_BYTES = 128
"""All banks of shared memory, side by side."""

comptime _MAX_SHARED_BYTES = 226 * 1024
"""What a thread block can have on Hopper, less 1 KiB for block reductions."""


@fieldwise_init
struct StreamShape(TrivialRegisterPassable):
    """How a thread block works.

    The constants were chosen by measurement: see `docs/kernel-log.md`.
    """

    var rows: Int
    """Rows of a row tile."""
    var warps: Int
    """Warps of a thread block, one block of a launch an SM."""
    var slots: Int
    """Chunks of weights that a warp keeps on their way."""
    var chunk_blocks: Int
    """Blocks along K that a warp copies at once: a chunk."""
    var registers: Int
    """Registers that a thread may take."""

    comptime FOUR_ROWS = Self(4, 12, 2, 15, 96)
    """Up to four rows an expert, and room on the SM for `FOUR_ROWS_NEXT`."""

    comptime FOUR_ROWS_NEXT = Self(4, 8, 2, 15, 112)
    """What a launch right after `FOUR_ROWS` takes."""

    # These fill an SM.
    comptime EIGHT_ROWS = Self(8, 16, 2, 15, 128)
    """Up to eight rows an expert."""

    comptime TWENTY_FOUR_ROWS = Self(24, 16, 2, 10, 128)
    """Up to 24 rows an expert, whose activations leave room for less else."""

    @inline(.always)
    def row_octets(self) -> Int:
        """Counts a row tile's groups of eight rows.

        Returns:
            The groups, the last of which may have fewer.
        """
        return ceildiv(self.rows, 8)

    @inline(.always)
    def cuts(self) -> Bool:
        """Tells whether panels are cut along K where warps would have none.

        Returns:
            Whether they are: a shape of few registers has none for that.
        """
        return self.registers >= 128

    @inline(.always)
    def threads(self) -> Int:
        """Counts the threads of a thread block.

        Returns:
            The threads.
        """
        return self.warps * WARP_SIZE

    @inline(.always)
    def chunk_scales(self) -> Int:
        """Finds a chunk's scales.

        Returns:
            Where they start, behind its packed elements, in bytes.
        """
        return self.chunk_blocks * PANEL_BLOCK_BYTES

    @inline(.always)
    def chunk_bytes(self) -> Int:
        """Sizes a chunk.

        Returns:
            Its bytes: a multiple of 16, as copies ask.
        """
        return self.chunk_scales() + self.chunk_blocks * PANEL_FEATURES

    @inline(.always)
    def no_row_bytes(self) -> Int:
        """Sizes the zeros that stand for rows of other experts.

        Returns:
            The bytes of a row's activations that meet one chunk, from any bank on.
        """
        return (
            self.chunk_blocks * BLOCK_ELEMENTS * size_of[BFloat16]()
            + BANKS_BYTES
        )


@fieldwise_init
struct StreamLayout[shape: StreamShape](TrivialRegisterPassable):
    """Offsets into a block's shared memory, in bytes.

    In order: each warp's slots, their barriers, that of the activations, these,
    zeros, the schedule.

    Parameters:
        shape: How a thread block works.
    """

    var depth: Int
    """Length of the sum, K."""
    var groups: Int
    """Expert groups."""

    @inline(.always)
    def row_blocks(self) -> Int:
        """Counts the blocks of a weight row.

        Returns:
            The blocks.
        """
        return self.depth // BLOCK_ELEMENTS

    @inline(.always)
    def slots(self, warp: Int) -> Int:
        """Finds a warp's slots.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return warp * Self.shape.slots * Self.shape.chunk_bytes()

    @inline(.always)
    def part_sums(self, shared: SharedPointer[UInt8], warp: Int32) -> PartSums:
        """Finds where a warp leaves sums over a part of K.

        Args:
            shared: The block's shared memory.
            warp: The warp, whose slots are not filled any more.

        Returns:
            The place.
        """
        comptime assert (
            Self.shape.slots * Self.shape.chunk_bytes()
            >= Self.shape.row_octets() * PartSums.OCTET_BYTES
        )
        return PartSums(
            shared.unsafe_offset(self.slots(Int(warp))).unsafe_bitcast[
                Float32
            ]()
        )

    @inline(.always)
    def barriers(self, warp: Int) -> Int:
        """Finds the barriers of a warp's slots.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return (
            self.slots(Self.shape.warps)
            + warp * Self.shape.slots * size_of[UInt64]()
        )

    @inline(.always)
    def activation_barrier(self) -> Int:
        """Finds the barrier of the activations.

        Returns:
            Where it starts, right behind those of all warps.
        """
        return self.barriers(Self.shape.warps)

    @inline(.always)
    def init_barriers(self, shared: SharedPointer[UInt8]):
        """Prepares all barriers, together with all threads.

        The threads meet before any of them is used.

        Args:
            shared: The block's shared memory.
        """
        # That of the activations comes right behind the warps'.
        comptime barriers = Self.shape.warps * Self.shape.slots + 1
        comptime assert barriers <= Self.shape.threads()
        var thread = Int(thread_idx.x)
        if thread < barriers:
            shared.unsafe_offset(self.barriers(0)).unsafe_bitcast[
                SharedMemBarrier
            ]()[unsafe_offset=thread].init(1)
            fence_mbarrier_init()

    @inline(.always)
    def activations(self) -> Int:
        """Finds the activations.

        Returns:
            Where they start.
        """
        return align_up(
            self.activation_barrier() + size_of[UInt64](), _ALIGNMENT
        )

    @inline(.always)
    def row_bytes(self) -> Int:
        """Measures from one row of activations to the next.

        Returns:
            The bytes, of which 16 are unused: see `activation_rows.mojo`.
        """
        return self.depth * size_of[BFloat16]() + 16

    @inline(.always)
    def no_row(self) -> Int:
        """Finds the zeros that stand for rows of other experts.

        Returns:
            Where they start.
        """
        return self.activations() + self.row_bytes() * Self.shape.rows

    @inline(.always)
    def schedule(self) -> Int:
        """Finds the schedule.

        Returns:
            Where it starts.
        """
        return self.no_row() + Self.shape.no_row_bytes()

    @inline(.always)
    def shared_bytes(self) -> Int:
        """Adds it all up.

        Returns:
            The bytes of shared memory that a block needs.
        """
        return self.schedule() + UnitSchedule.shared_bytes(self.groups)

    @staticmethod
    def fits(problem: MatmulProblem) -> Bool:
        """Tells whether the streaming matmul takes a problem.

        Shared memory must hold everything.

        Args:
            problem: The operands and their sizes.

        Returns:
            Whether it does.
        """
        var layout = Self(Int(problem.depth), Int(problem.groups))
        return (
            Int(problem.features) % PANEL_FEATURES == 0
            and layout.shared_bytes() <= _MAX_SHARED_BYTES
        )


@inline(.always)
def at_block[
    bytes: Int, known: Int
](start: SharedPointer[UInt8], more: Int32) -> SharedPointer[UInt8]:
    """Finds what belongs to a block along K.

    Parameters:
        bytes: Bytes of each block.
        known: The block, so that unrolled code has fixed offsets.

    Args:
        start: Where that of block 0 lies.
        more: Blocks to add to `known`.

    Returns:
        Where the block's lies.
    """
    # 32 bits suffice, and 64 of them take two instructions.
    return start.unsafe_offset(known * bytes + Int(more * Int32(bytes)))
