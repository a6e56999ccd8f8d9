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
from .divisor import Divisor
from .kernel_argument import KernelArgument
from .layer_problem import LayerProblem
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_FEATURES
from .slice_schedule import MAX_ROWS, TILE_ROWS, SlicePlace, SliceSchedule
from .stream_layout import StreamShape

comptime SLICE_FEATURES = BLOCK_ELEMENTS
"""Features between the projections that a slice has."""

comptime SLICE_PANELS = 2 * SLICE_FEATURES // PANEL_FEATURES
"""Panels of gate and up rows that a slice needs."""

comptime PARTS = 5
"""Parts of K that a panel of gate and up rows is cut into, for a warp each."""

comptime MAX_BLOCKS = 132
"""Thread blocks, one a multiprocessor: as many as Hopper GPUs have."""

comptime SHAPE = StreamShape(TILE_ROWS, SLICE_PANELS * PARTS, 2, 9, 96)
"""How a thread block works: see `docs/kernel-log.md`."""

comptime EXCHANGE_BUFFERS = 2
"""Slices whose gate and up sums may be on their way between warps."""

comptime EXCHANGE_FLOATS = SLICE_PANELS * PARTS * TILE_ROWS * PANEL_FEATURES
"""Partial sums of a slice."""

comptime TOKEN_BLOCK_BYTES = BLOCK_ELEMENTS * size_of[BFloat16]()
"""Bytes of a token's activations of one block along K."""

comptime _MAX_SHARED_BYTES = 226 * 1024
# What a thread block can have on Hopper, less 1 KiB.

comptime _BARRIERS_EACH = SHAPE.slots + 1
# Of a warp: one for each slot, one for its chunk of down.

comptime _ALIGNMENT = 16
# What the widest loads and most copies ask.

comptime _BOX_ALIGNMENT = 128
# What copies of boxes ask.


@fieldwise_init
struct PanelPart(TrivialRegisterPassable):
    """What a warp multiplies of each slice's gate and up: a part of a panel."""

    var start: Int32
    """The part's first block, of the slice's."""
    var first: Int32
    """The same block along K."""
    var blocks: Int32
    """Its blocks; none or less where K is short."""


struct SliceLayout(KernelArgument):
    """How panels are cut into chunks, and offsets into a block's shared memory.

    In order: each warp's chunk of down, each warp's slots of gate and up, barriers,
    activations between the projections, partial sums of gate and up, the schedule,
    and the tokens with a row of zeros, whose lengths the compiler does not know.
    The host computes the rest, so that no thread divides.
    """

    comptime NAME = StaticString("slice_layout")
    """The word for this layout."""

    var token_blocks: Int32
    """MXFP4 blocks of a token: along K of gate and up."""
    var slices: Divisor
    """Slices of an expert: blocks along K of down."""
    var part_blocks: Int32
    """Blocks of a part of K, the last parts' maybe less."""
    var down_panels: Int32
    """Panels of down that a warp has, the last warps' maybe less."""
    var tokens: Int32
    """Tokens."""

    @inline(.always)
    def __init__(out self, layer: LayerProblem, tokens: Int32):
        """Cuts a layer's panels.

        Args:
            layer: The operands and their sizes.
            tokens: Tokens.
        """
        # Locals, since Mojo 1.2 can lose a field that was just set.
        var token_blocks = layer.features // Int32(BLOCK_ELEMENTS)
        var chunks = ceildiv(token_blocks, Int32(SHAPE.chunk_blocks))
        var panels = layer.features // Int32(PANEL_FEATURES)
        self.token_blocks = token_blocks
        self.slices = Divisor(Int(layer.width) // BLOCK_ELEMENTS)
        self.part_blocks = ceildiv(chunks, Int32(PARTS)) * Int32(
            SHAPE.chunk_blocks
        )
        self.down_panels = ceildiv(panels, Int32(SHAPE.warps))
        self.tokens = tokens

    @inline(.always)
    def panel_part(self, warp: Int32) -> PanelPart:
        """Finds what a warp has of each slice's gate and up.

        Args:
            warp: The warp.

        Returns:
            Its part of a panel.
        """
        var panel = Int32(UInt32(warp) // PARTS)
        var first = (warp - panel * Int32(PARTS)) * self.part_blocks
        return PanelPart(
            panel * self.token_blocks + first,
            first,
            min(self.part_blocks, self.token_blocks - first),
        )

    @inline(.always)
    def place(self, number: Int32) -> SlicePlace:
        """Finds a slice.

        Args:
            number: Its number among those of all row tiles.

        Returns:
            Its row tile, and which of the expert's slices it is.
        """
        var tile = self.slices.quotient(number)
        return SlicePlace(tile, number - tile * self.slices.value)

    @staticmethod
    @inline(.always)
    def down_chunk(warp: Int) -> Int:
        """Finds a warp's chunk of down.

        Args:
            warp: The warp.

        Returns:
            Where it starts, at a multiple of 128 bytes, and so do its scales.
        """
        comptime assert SHAPE.chunk_scales() % _BOX_ALIGNMENT == 0
        return warp * align_up(SHAPE.chunk_bytes(), _BOX_ALIGNMENT)

    @staticmethod
    @inline(.always)
    def slots(warp: Int) -> Int:
        """Finds a warp's slots.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return (
            Self.down_chunk(SHAPE.warps)
            + warp * SHAPE.slots * SHAPE.chunk_bytes()
        )

    @staticmethod
    @inline(.always)
    def barriers(warp: Int) -> Int:
        """Finds the barriers of a warp's slots, and behind them that of its chunk
        of down.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return (
            Self.slots(SHAPE.warps) + warp * _BARRIERS_EACH * size_of[UInt64]()
        )

    @staticmethod
    @inline(.always)
    def init_barriers(shared: SharedPointer[UInt8]):
        """Prepares the warps' barriers, together with all threads.

        The threads meet before any of them is used.

        Args:
            shared: The block's shared memory.
        """
        comptime barriers = SHAPE.warps * _BARRIERS_EACH
        comptime assert barriers <= SHAPE.threads()
        var thread = Int(thread_idx.x)
        if thread < barriers:
            shared.unsafe_offset(Self.barriers(0)).unsafe_bitcast[
                SharedMemBarrier
            ]()[unsafe_offset=thread].init(1)
            fence_mbarrier_init()

    @staticmethod
    @inline(.always)
    def exchange_barriers() -> Int:
        """Finds the barriers of the partial sums of gate and up.

        Returns:
            Where they start.
        """
        return Self.barriers(SHAPE.warps)

    @staticmethod
    @inline(.always)
    def gated_rows(warp: Int) -> Int:
        """Finds a warp's activations between the projections.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return (
            align_up(
                Self.exchange_barriers() + EXCHANGE_BUFFERS * size_of[UInt64](),
                _ALIGNMENT,
            )
            + warp * TILE_ROWS * Self.gated_row_bytes()
        )

    @staticmethod
    @inline(.always)
    def gated_row_bytes() -> Int:
        """Measures from one row of these to the next.

        Returns:
            The bytes, of which 16 are unused.
        """
        return TOKEN_BLOCK_BYTES + 16

    @staticmethod
    @inline(.always)
    def exchange() -> Int:
        """Finds the partial sums of gate and up.

        Returns:
            Where they start.
        """
        return Self.gated_rows(SHAPE.warps)

    @staticmethod
    @inline(.always)
    def schedule() -> Int:
        """Finds the schedule.

        Returns:
            Where it starts.
        """
        return (
            Self.exchange()
            + EXCHANGE_BUFFERS * EXCHANGE_FLOATS * size_of[Float32]()
        )

    @inline(.always)
    def token_row(self, token: Int32) -> Int:
        """Finds a token's activations.

        Args:
            token: The token.

        Returns:
            Where they start.
        """
        return align_up(
            Self.schedule() + SliceSchedule.shared_bytes(), _ALIGNMENT
        ) + Int(token * Int32(self.token_bytes()))

    @inline(.always)
    def no_row(self) -> Int:
        """Finds a row of zeros, which stands for rows that a tile has not.

        Returns:
            Where it starts.
        """
        return self.token_row(self.tokens)

    @inline(.always)
    def token_bytes(self) -> Int:
        """Measures from one token to the next.

        Returns:
            The bytes, of which 16 are unused: see `activation_rows.mojo`.
        """
        return Int(self.token_blocks) * TOKEN_BLOCK_BYTES + 16

    @inline(.always)
    def shared_bytes(self) -> Int:
        """Adds it all up.

        Returns:
            The bytes of shared memory that a block needs.
        """
        return self.token_row(self.tokens + 1)

    @staticmethod
    def fits(layer: LayerProblem, tokens: Int) -> Bool:
        """Tells whether the layer kernel takes a problem.

        Args:
            layer: The operands and their sizes.
            tokens: Tokens.

        Returns:
            Whether rows are few, features whole slices and panels, a warp's panels
            of down no more than a chunk, and shared memory holds everything.
        """
        if (
            layer.rows > Int32(MAX_ROWS)
            or layer.features % Int32(BLOCK_ELEMENTS) != 0
            or layer.width % Int32(SLICE_FEATURES) != 0
        ):
            return False
        var layout = Self(layer, Int32(tokens))
        return (
            layout.down_panels <= Int32(SHAPE.chunk_blocks)
            and layout.shared_bytes() <= _MAX_SHARED_BYTES
        )
