# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How the layer kernel for few rows cuts its work, and its shared memory.

A slice of an expert is 32 of the features between its two projections: one MXFP4
block along the K of `down`, and the four panels of gate and up rows that make it.
"""

from std.math import align_up, ceildiv
from std.sys import size_of

from layout.tma_async import SharedMemBarrier
from max.gpu import thread_idx
from max.gpu.memory import fence_mbarrier_init

from .bulk_copy import SharedPointer
from .kernel_argument import KernelArgument
from .layer_problem import LayerProblem
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_FEATURES
from .slice_schedule import MAX_ROWS, TILE_ROWS, SliceSchedule
from .stream_layout import StreamShape

comptime SLICE_FEATURES = BLOCK_ELEMENTS
"""Features between the projections that a slice has."""

comptime SLICE_PANELS = 2 * SLICE_FEATURES // PANEL_FEATURES
"""Panels of gate and up rows that a slice needs."""

comptime MAX_BLOCKS = 132
"""Thread blocks, one a multiprocessor: as many as Hopper GPUs have."""

comptime SHAPE = StreamShape(TILE_ROWS, 20, 2, 18, 96)
"""How a thread block works: see `docs/kernel-log.md`."""

comptime _MAX_SHARED_BYTES = 226 * 1024
# What a thread block can have on Hopper, less 1 KiB.

comptime PARTS = 5
"""Parts of K that a panel of gate and up rows is cut into, for a warp each."""

comptime _ALIGNMENT = 16
# What the widest loads and all copies ask.


struct SliceLayout(KernelArgument):
    """How panels are cut into chunks, and offsets into a block's shared memory.

    In order: each warp's slots, their barriers, that of the tokens, these, zeros,
    activations between the projections, partial sums of gate and up, the schedule.
    The host computes it, so that no thread divides.
    """

    comptime NAME = StaticString("slice_layout")
    """The word for this layout."""

    var token_blocks: Int32
    """MXFP4 blocks of a token: along K of gate and up."""
    var width_blocks: Int32
    """Slices of an expert: blocks along K of down."""
    var part_chunks: Int32
    """Chunks of a part of K, the last parts' maybe less."""
    var tokens: Int32
    """Tokens."""
    var slices: Int32
    """The most slices of one expert that a block has."""

    @inline(.always)
    def __init__(out self, layer: LayerProblem, tokens: Int32, blocks: Int32):
        """Cuts a layer's panels.

        Args:
            layer: The operands and their sizes.
            tokens: Tokens.
            blocks: Thread blocks.
        """
        # Locals, since Mojo 1.2 can lose a field that was just set.
        var token_blocks = layer.features // Int32(BLOCK_ELEMENTS)
        var width_blocks = layer.width // Int32(BLOCK_ELEMENTS)
        var chunks = ceildiv(token_blocks, Int32(SHAPE.chunk_blocks))
        var rows = min(layer.rows, Int32(MAX_ROWS))
        var most = ceildiv(rows * width_blocks, blocks)
        self.token_blocks = token_blocks
        self.width_blocks = width_blocks
        self.part_chunks = ceildiv(chunks, Int32(PARTS))
        self.tokens = tokens
        self.slices = min(most, width_blocks)

    @inline(.always)
    def slots(self, warp: Int) -> Int:
        """Finds a warp's slots.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return warp * SHAPE.slots * SHAPE.chunk_bytes()

    @inline(.always)
    def barriers(self, warp: Int) -> Int:
        """Finds the barriers of a warp's slots.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return self.slots(SHAPE.warps) + warp * SHAPE.slots * size_of[UInt64]()

    @inline(.always)
    def token_barrier(self) -> Int:
        """Finds the barrier of the tokens.

        Returns:
            Where it starts, right behind those of all warps.
        """
        return self.barriers(SHAPE.warps)

    @inline(.always)
    def init_slot_barriers(self, shared: SharedPointer[UInt8]):
        """Prepares the warps' barriers, together with all threads.

        The threads meet before any of them is used.

        Args:
            shared: The block's shared memory.
        """
        comptime barriers = SHAPE.warps * SHAPE.slots
        comptime assert barriers <= SHAPE.threads()
        var thread = Int(thread_idx.x)
        if thread < barriers:
            shared.unsafe_offset(self.barriers(0)).unsafe_bitcast[
                SharedMemBarrier
            ]()[unsafe_offset=thread].init(1)
            fence_mbarrier_init()

    @inline(.always)
    def token_rows(self) -> Int:
        """Finds the tokens' activations.

        Returns:
            Where they start.
        """
        return align_up(self.token_barrier() + size_of[UInt64](), _ALIGNMENT)

    @inline(.always)
    def token_bytes(self) -> Int:
        """Measures from one token to the next.

        Returns:
            The bytes, of which 16 are unused: see `activation_rows.mojo`.
        """
        return _row_bytes(self.token_blocks)

    @inline(.always)
    def no_row(self) -> Int:
        """Finds the zeros that stand for rows of other experts.

        Returns:
            Where they start.
        """
        return self.token_rows() + Int(self.tokens) * self.token_bytes()

    @inline(.always)
    def gated_rows(self) -> Int:
        """Finds the activations between the projections.

        Returns:
            Where they start.
        """
        return self.no_row() + SHAPE.no_row_bytes()

    @inline(.always)
    def gated_bytes(self) -> Int:
        """Measures from one row of these to the next.

        Returns:
            The bytes, of which 16 are unused.
        """
        return _row_bytes(self.slices)

    @inline(.always)
    def part_sums(self) -> Int:
        """Finds the partial sums of gate and up.

        Returns:
            Where they start.
        """
        return self.gated_rows() + TILE_ROWS * self.gated_bytes()

    @inline(.always)
    def schedule(self) -> Int:
        """Finds the schedule.

        Returns:
            Where it starts.
        """
        comptime sums = TILE_ROWS * PANEL_FEATURES * size_of[Float32]()
        return (
            self.part_sums()
            + Int(self.slices * Int32(SLICE_PANELS * PARTS)) * sums
        )

    @inline(.always)
    def shared_bytes(self) -> Int:
        """Adds it all up.

        Returns:
            The bytes of shared memory that a block needs.
        """
        return self.schedule() + SliceSchedule.shared_bytes()

    @staticmethod
    def fits(layer: LayerProblem, tokens: Int, blocks: Int) -> Bool:
        """Tells whether the layer kernel takes a problem.

        Args:
            layer: The operands and their sizes.
            tokens: Tokens.
            blocks: Thread blocks.

        Returns:
            Whether rows are few, features whole slices and panels, a block's
            slices of an expert no more than a chunk has blocks, and shared
            memory holds everything.
        """
        if (
            layer.rows > Int32(MAX_ROWS)
            or layer.features % Int32(BLOCK_ELEMENTS) != 0
            or layer.width % Int32(SLICE_FEATURES) != 0
        ):
            return False
        var layout = Self(layer, Int32(tokens), Int32(blocks))
        return (
            layout.slices <= Int32(SHAPE.chunk_blocks)
            and layout.shared_bytes() <= _MAX_SHARED_BYTES
        )


@inline(.always)
def _row_bytes(blocks: Int32) -> Int:
    return Int(blocks) * BLOCK_ELEMENTS * size_of[BFloat16]() + 16
