# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One warp's packed weights, copied to shared memory ahead of their use.

A warp has slots of its own, and nobody else waits for them. One lane starts a
chunk's two copies, packed elements and scales; a slot takes the next chunk as
soon as its warp has read it.
"""

from layout.tma_async import SharedMemBarrier
from max.gpu import lane_id, warp_id

from .bulk_copy import SharedPointer
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .problem import MatmulProblem
from .stream_layout import StreamLayout, StreamShape
from .stream_schedule import Pieces, UnitSchedule
from .weight_chunk import WeightChunk


struct WeightStream[shape: StreamShape](TrivialRegisterPassable):
    """The chunks of a warp's panels, one after the other.

    Parameters:
        shape: How a thread block works.
    """

    var slots: SharedPointer[UInt8]
    """The warp's slots."""
    var barriers: SharedPointer[SharedMemBarrier]
    """Their barriers."""
    var slot: Int32
    """The oldest slot: what is read next, and overwritten after that."""
    var phase: UInt32
    """The parity that its barrier waits for."""
    var blocks_left: Int32
    """Blocks still to be copied of the panel that copies are in; none after
    the last panel."""
    var block: Int32
    """The block of the stack that is copied next."""
    var pieces: Pieces[
        Self.shape.warps, Self.shape.chunk_blocks, Self.shape.cuts()
    ]
    """The block's units."""
    var place: Int32
    """The place of the piece that copies are in."""
    var tile_end: Int32
    """The unit behind the row tile of that piece."""
    var first_panel: Int32
    """The first panel in the stack of that tile's expert, less its first unit."""

    @inline(.always)
    def __init__(
        out self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        shared: SharedPointer[UInt8],
        schedule: UnitSchedule,
        pieces: Pieces[
            Self.shape.warps, Self.shape.chunk_blocks, Self.shape.cuts()
        ],
        place: Int32,
    ):
        """Makes a stream, and fills its slots, whose barriers are ready.

        Args:
            problem: The operands and their sizes.
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            schedule: The row tiles.
            pieces: The block's units.
            place: The place of the warp's first piece.
        """
        var warp = Int(warp_id())
        self.slots = shared.unsafe_offset(layout.slots(warp))
        self.barriers = shared.unsafe_offset(
            layout.barriers(warp)
        ).unsafe_bitcast[SharedMemBarrier]()
        self.slot = 0
        # Filling all slots goes around once.
        self.phase = 1
        self.blocks_left = 0
        self.block = 0
        self.pieces = pieces
        self.place = place
        self.tile_end = 0
        self.first_panel = 0
        self._begin_piece(problem, layout, schedule)
        for _ in range(Self.shape.slots):
            self.next_chunk(problem, layout, schedule)

    @inline(.always)
    def chunk(self) -> WeightChunk[Self.shape]:
        """Waits until the oldest slot's chunk has come.

        Returns:
            The chunk.
        """
        self.barriers[unsafe_offset=Int(self.slot)].wait(self.phase)
        return WeightChunk[Self.shape](
            self.slots.unsafe_offset(Int(self.slot) * Self.shape.chunk_bytes())
        )

    @inline(.always)
    def next_chunk(
        mut self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        schedule: UnitSchedule,
    ):
        """Starts copying into the oldest slot, which all lanes have read.

        The slot after it becomes the oldest.

        Args:
            problem: The operands and their sizes.
            layout: Where things lie in shared memory.
            schedule: The row tiles.
        """
        comptime whole = Int32(Self.shape.chunk_blocks)
        # None behind the last piece, whose successor is then looked for in vain.
        var blocks = min(self.blocks_left, whole)
        if lane_id() == 0 and blocks > 0:
            # A size that is known takes fewer instructions.
            if blocks == whole:
                self._copy(problem, whole)
            else:
                self._copy(problem, blocks)
        self.block += blocks
        self.blocks_left -= blocks
        if self.blocks_left == 0:
            self.place += Int32(Self.shape.warps)
            self._begin_piece(problem, layout, schedule)
        self.slot += 1
        if self.slot == Int32(Self.shape.slots):
            self.slot = 0
            self.phase ^= 1

    @inline(.always)
    def _copy(self, problem: MatmulProblem, blocks: Int32):
        var target = self.slots.unsafe_offset(
            Int(self.slot) * Self.shape.chunk_bytes()
        )
        var barrier = self.barriers.unsafe_offset(Int(self.slot))
        barrier[].expect_bytes(
            blocks * Int32(PANEL_BLOCK_BYTES + PANEL_FEATURES)
        )
        WeightChunk[Self.shape](target).copy[once=True](
            problem.blocks, problem.scales, self.block, blocks, barrier
        )

    @inline(.always)
    def _begin_piece(
        mut self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        schedule: UnitSchedule,
    ):
        var piece = self.pieces.piece(self.place, Int32(layout.row_blocks()))
        self.blocks_left = piece.blocks
        if piece.blocks == 0:
            return
        if piece.unit >= self.tile_end:
            var panels = schedule.divisors.panels.value
            var tile = schedule.divisors.panels.quotient(piece.unit)
            self.tile_end = (tile + 1) * panels
            self.first_panel = (schedule.row_tile(tile).expert - tile) * panels
        self.block = (self.first_panel + piece.unit) * Int32(
            layout.row_blocks()
        ) + piece.first_block
