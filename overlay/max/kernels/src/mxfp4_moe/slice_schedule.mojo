# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How thread blocks share the slices of the experts that a routing selected.

Slices are numbered along those of the first row tile, then of the second, and each
thread block takes a contiguous range of them. What a block has of one row tile is a
segment: the block adds a segment's products with `down` up, and nobody else does.
"""

from std.bit import count_trailing_zeros, pop_count
from std.sys import size_of

from max.gpu import WARP_SIZE, lane_id
from max.gpu.primitives import warp

from .bulk_copy import SharedPointer
from .slot_choice import SlotChoice
from .warp_lanes import lanes_with
from .work_share import share_start

comptime TILE_ROWS = 2
"""Routed rows of an expert that a slice meets at once."""

comptime MAX_ROWS = 16
"""Routed rows of a whole problem, and so the most row tiles."""


@inline(.always)
def tile_rows(tokens: Int32) -> Int32:
    """Counts the rows that row tiles can have.

    Args:
        tokens: Tokens.

    Returns:
        The rows: no more than tokens, so that one token asks for less room.
    """
    return min(tokens, Int32(TILE_ROWS))


@fieldwise_init
struct BlockShare(TrivialRegisterPassable):
    """The slices of one thread block."""

    var first: Int32
    """The first slice's number."""
    var end: Int32
    """The number after the last."""
    var all: Int32
    """Slices of all blocks."""


@fieldwise_init
struct SliceTile(TrivialRegisterPassable):
    """Some slots of one expert."""

    var expert: Int32
    """The expert."""
    var rows: Int32
    """The slots, `TILE_ROWS` at most."""


@fieldwise_init
struct SlicePlace(TrivialRegisterPassable):
    """Where among all slices one is."""

    var tile: Int32
    """Its row tile's number."""
    var slice: Int32
    """The slice, of the expert's."""


struct SliceSchedule(TrivialRegisterPassable):
    """The row tiles of a routing and a thread block's share, in shared memory.
    """

    var tiles: SharedPointer[SliceTile]
    """The row tiles."""
    var tokens: SharedPointer[Int32]
    """The tokens of each row tile's rows: `[MAX_ROWS, TILE_ROWS]`."""
    var places: SharedPointer[Int32]
    """Of each slot, where its token stands among those, or -1: `[MAX_ROWS]`."""
    var choices: SharedPointer[SlotChoice]
    """What the router chose, where that is selected here: `[MAX_ROWS]`."""
    var share: SharedPointer[BlockShare]
    """The thread block's share."""
    var tile_slices: Int32
    """Slices of a row tile: an expert's."""

    @inline(.always)
    def __init__(out self, place: SharedPointer[UInt8], tile_slices: Int32):
        """Finds the parts of a schedule that `list_tiles` fills.

        Args:
            place: Its shared memory.
            tile_slices: Slices of an expert.
        """
        self.tiles = place.unsafe_bitcast[SliceTile]()
        self.tokens = self.tiles.unsafe_offset(MAX_ROWS).unsafe_bitcast[Int32]()
        self.places = self.tokens.unsafe_offset(MAX_ROWS * TILE_ROWS)
        self.choices = self.places.unsafe_offset(MAX_ROWS).unsafe_bitcast[
            SlotChoice
        ]()
        self.share = self.choices.unsafe_offset(MAX_ROWS).unsafe_bitcast[
            BlockShare
        ]()
        self.tile_slices = tile_slices

    @staticmethod
    def shared_bytes() -> Int:
        """Sizes a schedule.

        Returns:
            Its bytes of shared memory.
        """
        return (
            MAX_ROWS * size_of[SliceTile]()
            + MAX_ROWS * (TILE_ROWS + 1) * size_of[Int32]()
            + MAX_ROWS * size_of[SlotChoice]()
            + size_of[BlockShare]()
        )

    @inline(.always)
    def list_tiles[
        top_k: Int
    ](self, expert: Int32, tokens: Int32, block: Int32, blocks: Int32):
        """Lists the row tiles, and finds the block's share, with a whole warp.

        Slots of an expert come together in their order, so that sums do not depend
        on the run. The block's threads meet before any of them reads the list.

        Parameters:
            top_k: Choices a token.

        Args:
            expert: The expert of the lane's slot; less than 0 for none.
            tokens: Tokens.
            block: The thread block.
            blocks: Thread blocks.
        """
        # A lane for each slot.
        comptime assert MAX_ROWS <= WARP_SIZE
        var lane = UInt32(lane_id())
        var earlier = (UInt32(1) << lane) - 1
        var same = lanes_with(UInt32(expert))
        var rank = Int32(pop_count(same & earlier))
        var rows = tile_rows(tokens)
        comptime assert TILE_ROWS == 2
        var in_tile = rank & (rows - 1)
        var leads = expert >= 0 and in_tile == 0
        var leaders = warp.vote[.uint32](leads)
        # Of more slots than a tile has, the first ones are in other tiles.
        var from_tile = same
        for _ in range(rank - in_tile):
            from_tile &= from_tile - 1
        var leader = UInt32(count_trailing_zeros(from_tile))
        var tile = Int32(pop_count(leaders & ((UInt32(1) << leader) - 1)))
        var place = tile * TILE_ROWS + in_tile
        if leads:
            self.tiles[unsafe_offset=Int(tile)] = SliceTile(
                expert, min(rows, Int32(pop_count(from_tile)))
            )
        if expert >= 0:
            self.tokens[unsafe_offset=Int(place)] = Int32(lane // UInt32(top_k))
        if lane < MAX_ROWS:
            self.places[unsafe_offset=Int(lane)] = place if expert >= 0 else -1
        # Once here, and one for all, since divisions take a warp a hundred cycles.
        var slices = Int32(pop_count(leaders)) * self.tile_slices
        var start = share_start(slices, blocks, block + Int32(lane))
        var first = warp.shuffle_idx(start, 0)
        var end = warp.shuffle_idx(start, 1)
        if lane == 0:
            self.share[] = BlockShare(first, end, slices)

    @inline(.always)
    def expert_of(self, tile: Int32) -> Int32:
        """Reads whose row tile it is.

        Args:
            tile: The row tile's number.

        Returns:
            The expert.
        """
        return self.tiles[unsafe_offset=Int(tile)].expert

    @inline(.always)
    def rows_of[rows: Int](self, tile: Int32) -> Int32:
        """Reads how many rows a row tile has.

        Parameters:
            rows: Rows that a row tile can have.

        Args:
            tile: The row tile's number.

        Returns:
            The rows.
        """
        # One token has one row of each of its experts.
        comptime if rows == 1:
            return 1
        return self.tiles[unsafe_offset=Int(tile)].rows

    @inline(.always)
    def token_of[rows: Int](self, tile: Int32, row: Int32) -> Int32:
        """Reads which token a row is of.

        Parameters:
            rows: Rows that a row tile can have.

        Args:
            tile: The row tile's number.
            row: A row that it has.

        Returns:
            The token.
        """
        comptime if rows == 1:
            return 0
        return self.tokens[unsafe_offset=Int(tile * TILE_ROWS + row)]
