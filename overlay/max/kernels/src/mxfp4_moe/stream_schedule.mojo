# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How thread blocks share the weights that a routing selected.

A unit of work is one panel met by one row tile: up to a tile's rows of one
group. Units are numbered along the features of the first row tile, then of the
second, and each thread block takes a contiguous range of them, of equal cost. So
the weights are read evenly whatever the routing.

Tiles are seldom full, so those that follow each other share the place in shared
memory that one full tile needs: a run. Only between runs must a block's warps
wait for each other.
"""

from std.bit import count_trailing_zeros, pop_count
from std.math import ceildiv
from std.sys import size_of

from max.gpu import WARP_SIZE, grid_dim, lane_id, thread_idx, warp_id
from max.gpu.primitives import warp
from max.gpu.sync import barrier

from .bulk_copy import SharedPointer
from .panels import PANEL_FEATURES
from .problem import MatmulProblem
from .tile_schedule import RowTile
from .work_share import share_start


comptime _PANEL_COST = 4
# What a panel costs besides its products, in what products with eight rows
# cost: see `docs/kernel-log.md`.

comptime _RUN_COST = 64
# Likewise, what it costs that a block's warps wait for each other, and for the
# activations of the next run.


@fieldwise_init
struct GroupTiles(TrivialRegisterPassable):
    """The row tiles of one group."""

    var end: Int32
    """The row tiles of the groups up to and with this one."""
    var expert: Int32
    """The group's expert."""
    var first_row: Int32
    """The group's first routed row."""
    var rows: Int32
    """Its rows."""


@fieldwise_init
struct TileRun(TrivialRegisterPassable):
    """Row tiles that follow each other and have no more rows than one can."""

    var end_tile: Int32
    """The row tile after the last one."""
    var first_row: Int32
    """The first routed row."""
    var rows: Int32
    """Routed rows, without a gap."""


@fieldwise_init
struct Piece(TrivialRegisterPassable):
    """A unit, or some blocks along K of one."""

    var unit: Int32
    """The unit."""
    var first_block: Int32
    """The first of its blocks along K."""
    var blocks: Int32
    """How many: none where there is nothing."""


struct Pieces[warps: Int, chunk_blocks: Int, cuts: Bool](
    TrivialRegisterPassable
):
    """What the warps of a thread block do of its units.

    They take them in turn. Those left when all warps have had as many are cut along
    K, where there are enough warps for that, so that none is busy alone.

    Parameters:
        warps: Warps of the block.
        chunk_blocks: Parts are a multiple of as many blocks, but for the last.
        cuts: Whether any are cut.
    """

    var first_left: Int32
    """The first unit that is left."""
    var left: Int32
    """The units that are left, fewer than warps."""
    var parts: Int32
    """Parts of each of these."""

    @inline(.always)
    def __init__(
        out self, first_unit: Int32, end_unit: Int32, row_blocks: Int32
    ):
        """Cuts a thread block's units.

        Args:
            first_unit: The first of them.
            end_unit: Their end.
            row_blocks: Blocks along K of a unit.
        """
        self.left = Int32(UInt32(end_unit - first_unit) % UInt32(Self.warps))
        self.first_left = end_unit - self.left
        self.parts = 1
        comptime if Self.cuts:
            self.parts = min(
                Int32(UInt32(Self.warps) // UInt32(max(self.left, 1))),
                Self._chunks(row_blocks),
            )

    @inline(.always)
    def piece(self, place: Int32, row_blocks: Int32) -> Piece:
        """Finds a piece.

        Args:
            place: A unit that is not left, or the first that is and to it the
                number of a warp.
            row_blocks: Blocks along K of a unit.

        Returns:
            The piece.
        """
        var index = place - self.first_left
        if index < 0:
            return Piece(place, 0, row_blocks)
        if index >= self.left * self.parts:
            return Piece(place, 0, 0)
        var part = Int32(UInt32(index) // UInt32(self.left))
        var chunks = Self._chunks(row_blocks)
        var first = share_start(chunks, self.parts, part) * Int32(
            Self.chunk_blocks
        )
        var end = share_start(chunks, self.parts, part + 1) * Int32(
            Self.chunk_blocks
        )
        return Piece(
            self.first_left + index - part * self.left,
            first,
            min(end, row_blocks) - first,
        )

    @inline(.always)
    def are_cut(self) -> Bool:
        """Tells whether units that are left are cut.

        Returns:
            Whether there are such units and warps for them.
        """
        return Self.cuts and self.left > 0 and self.parts > 1

    @staticmethod
    @inline(.always)
    def _chunks(row_blocks: Int32) -> Int32:
        return Int32(ceildiv(UInt32(row_blocks), UInt32(Self.chunk_blocks)))


struct UnitSchedule(TrivialRegisterPassable):
    """The row tiles of the groups that have any, listed in shared memory."""

    var tiles: SharedPointer[GroupTiles]
    """The row tiles of each of these groups."""
    var costs: SharedPointer[Int32]
    """What the groups up to and with each cost."""
    var warp_tiles: SharedPointer[GroupTiles]
    """Room for what each warp lists."""
    var listed: Int32
    """Groups in the list."""
    var row_tiles: Int32
    """Row tiles of all groups."""
    var cost: Int32
    """What all of these cost."""
    var loses_rows: Bool
    """Whether any rows belong to no expert."""
    var groups: Int32
    """Groups, with those that have no rows."""
    var tile_rows: Int32
    """Rows of a tile."""

    @inline(.always)
    def __init__(
        out self,
        place: SharedPointer[UInt8],
        problem: MatmulProblem,
        tile_rows: Int32,
    ):
        """Makes an empty schedule.

        Args:
            place: Its shared memory.
            problem: The operands and their sizes.
            tile_rows: Rows of a tile.
        """
        self.warp_tiles = place.unsafe_bitcast[GroupTiles]()
        self.tiles = self.warp_tiles.unsafe_offset(WARP_SIZE)
        self.costs = self.tiles.unsafe_offset(
            Int(problem.groups)
        ).unsafe_bitcast[Int32]()
        self.listed = 0
        self.row_tiles = 0
        self.cost = 0
        self.loses_rows = problem.groups == 0
        self.groups = problem.groups
        self.tile_rows = tile_rows

    @staticmethod
    def shared_bytes(groups: Int) -> Int:
        """Sizes the list.

        Args:
            groups: Groups.

        Returns:
            Its bytes of shared memory.
        """
        return (WARP_SIZE + groups) * size_of[GroupTiles]() + groups * size_of[
            Int32
        ]()

    @inline(.always)
    def build[threads: Int](mut self, problem: MatmulProblem):
        """Fills the list, together with all threads of the block.

        Groups of no expert have no row tiles.

        Parameters:
            threads: Threads of the block.

        Args:
            problem: The operands and their sizes.
        """
        comptime warps = threads // WARP_SIZE
        comptime assert warps <= WARP_SIZE
        var panels = problem.features // Int32(PANEL_FEATURES)
        for base in range(0, Int(self.groups), threads):
            var group = base + Int(thread_idx.x)
            var expert = -1
            var first = 0
            var rows = Int32(0)
            var rows_before = Int32(0)
            var lost = False
            if group < Int(self.groups):
                expert = problem.group_expert(group)
                var first_before, _ = problem.group_bounds(group - 1)
                var end: Int
                first, end = problem.group_bounds(group)
                rows_before = Int32(first - first_before)
                rows = Int32(end - first) if expert >= 0 else 0
                lost = (
                    Int(rows) < end - first
                    or (group == 0 and first > 0)
                    or (
                        group == Int(self.groups) - 1
                        and end < Int(problem.rows)
                    )
                )
            var through = warp.prefix_sum(self._tiles_of(rows))
            var cost_through = warp.prefix_sum(
                self._cost(rows, panels) + self._opening_cost(rows_before, rows)
            )
            var with_rows = warp.vote[.uint32](rows > 0)
            var lanes_lose = Int32(warp.vote[.uint32](lost) != 0)
            if lane_id() == WARP_SIZE - 1:
                self.warp_tiles[unsafe_offset=Int(warp_id())] = GroupTiles(
                    through,
                    Int32(pop_count(with_rows)),
                    lanes_lose,
                    cost_through,
                )
            barrier()
            var place = self.listed
            var before = self.row_tiles
            var cost_before = self.cost
            comptime for other in range(warps):
                # Reads do not depend on each other: one wait for all.
                var others = self.warp_tiles[unsafe_offset=other]
                if other < Int(warp_id()):
                    before += others.end
                    place += others.expert
                    cost_before += others.rows
                self.cost += others.rows
                self.row_tiles += others.end
                self.listed += others.expert
                self.loses_rows = self.loses_rows or others.first_row != 0
            if rows > 0:
                var earlier_lanes = (UInt32(1) << UInt32(lane_id())) - 1
                place += Int32(pop_count(with_rows & earlier_lanes))
                self.tiles[unsafe_offset=Int(place)] = GroupTiles(
                    before + through, Int32(expert), Int32(first), rows
                )
                self.costs[unsafe_offset=Int(place)] = (
                    cost_before + cost_through
                )
            barrier()

    @inline(.always)
    def _tiles_of(self, rows: Int32) -> Int32:
        # 32 bits without a sign: 64 of them take a hundred instructions.
        return Int32(ceildiv(UInt32(rows), UInt32(self.tile_rows)))

    @inline(.always)
    def _cost(self, rows: Int32, panels: Int32) -> Int32:
        # Of a group whose first row tile begins no run.
        var tiles = self._tiles_of(rows)
        return (tiles * Int32(_PANEL_COST) + _octets_of(rows)) * panels + (
            max(tiles - 1, 0) * Int32(_RUN_COST)
        )

    @inline(.always)
    def _opening_cost(self, rows_before: Int32, rows: Int32) -> Int32:
        # Where the first row tile of a group cannot share a run with the last one of
        # the group before. A group before that has no rows is not looked behind.
        if rows == 0 or rows_before == 0:
            return 0
        var last = (
            rows_before - (self._tiles_of(rows_before) - 1) * self.tile_rows
        )
        return (
            Int32(_RUN_COST) if last + min(rows, self.tile_rows)
            > self.tile_rows else 0
        )

    @inline(.always)
    def row_tile(self, index: Int32) -> RowTile:
        """Finds a row tile, with all lanes of a warp.

        Args:
            index: The row tile, less than `row_tiles`.

        Returns:
            Its expert and rows.
        """
        var group = self.tiles[
            unsafe_offset=Int(self._find[by_cost=False](index))
        ]
        # The tiles of this group that come before.
        var skipped = index - (group.end - self._tiles_of(group.rows))
        var first = skipped * self.tile_rows
        return RowTile(
            group.expert,
            group.first_row + first,
            min(self.tile_rows, group.rows - first),
        )

    @inline(.always)
    def first_unit[
        equal_tiles: Bool
    ](self, panels: Int32, block: Int32) -> Int32:
        """Finds where a thread block's share of the units begins.

        Parameters:
            equal_tiles: Whether all row tiles cost the same.

        Args:
            panels: Panels of an expert.
            block: The thread block, or the number of them.

        Returns:
            The first unit of the block: the end of the one's before it.
        """
        comptime if equal_tiles:
            return share_start(
                self.row_tiles * panels, Int32(grid_dim.x), block
            )
        var before = share_start(self.cost, Int32(grid_dim.x), block)
        if before >= self.cost:
            return self.row_tiles * panels
        var place = self._find[by_cost=True](before)
        var group = self.tiles[unsafe_offset=Int(place)]
        var tiles = self._tiles_of(group.rows)
        # A share that begins while a run does, begins with the run.
        var within = max(
            before
            - self.costs[unsafe_offset=Int(place)]
            + self._cost(group.rows, panels),
            0,
        )
        # All tiles but the last are full.
        var full_octets = self.tile_rows // 8
        var full_cost = (Int32(_PANEL_COST) + full_octets) * panels + Int32(
            _RUN_COST
        )
        var tile = min(Int32(UInt32(within) // UInt32(full_cost)), tiles - 1)
        var panel_cost = Int32(_PANEL_COST) + min(
            full_octets, _octets_of(group.rows) - tile * full_octets
        )
        var panel = Int32(
            ceildiv(UInt32(within - tile * full_cost), UInt32(panel_cost))
        )
        return (group.end - tiles + tile) * panels + min(panel, panels)

    @inline(.always)
    def _find[*, by_cost: Bool](self, before: Int32) -> Int32:
        # The first listed group that ends behind that, for all lanes of a warp.
        for base in range(Int32(0), self.listed, Int32(WARP_SIZE)):
            var place = base + Int32(lane_id())
            var behind = (
                place < self.listed
                and self._through[by_cost=by_cost](place) > before
            )
            var found = warp.vote[.uint32](behind)
            if found != 0:
                return base + Int32(count_trailing_zeros(found))
        return self.listed - 1

    @inline(.always)
    def _through[*, by_cost: Bool](self, place: Int32) -> Int32:
        # Row tiles, or their cost, up to and with a group.
        comptime if by_cost:
            return self.costs[unsafe_offset=Int(place)]
        return self.tiles[unsafe_offset=Int(place)].end

    @inline(.always)
    def tile_run(self, first_tile: Int32, end_tile: Int32) -> TileRun:
        """Finds as many row tiles as can share the place of one.

        Args:
            first_tile: The first of them.
            end_tile: The end of those to choose from, more than `first_tile`.

        Returns:
            The run.
        """
        var first = self.row_tile(first_tile)
        var run = TileRun(first_tile + 1, first.first, first.count)
        while run.end_tile < end_tile:
            var next = self.row_tile(run.end_tile)
            # Rows of no expert may lie between two groups.
            var gap = next.first != run.first_row + run.rows
            if gap or run.rows + next.count > self.tile_rows:
                break
            run.rows += next.count
            run.end_tile += 1
        return run


@inline(.always)
def _octets_of(rows: Int32) -> Int32:
    return Int32(ceildiv(UInt32(rows), 8))
