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

from std.bit import count_trailing_zeros
from std.math import ceildiv
from std.sys import size_of
from std.utils import StaticTuple

from max.gpu import WARP_SIZE, block_idx, lane_id, thread_idx, warp_id
from max.gpu.primitives import warp
from max.gpu.sync import barrier, syncwarp

from .bulk_copy import SharedPointer
from .divisor import Divisor, small_quotient
from .kernel_argument import KernelArgument
from .l2_prefetch import prefetch_to_l2
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
                small_quotient(Int32(Self.warps), max(self.left, 1)),
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
        var part = small_quotient(index, self.left)
        var chunks = Self._chunks(row_blocks)
        # The first parts have a chunk more.
        var each = small_quotient(chunks, self.parts)
        var larger = chunks - each * self.parts
        var first = (each * part + min(part, larger)) * Int32(Self.chunk_blocks)
        var blocks = (each + Int32(part < larger)) * Int32(Self.chunk_blocks)
        return Piece(
            self.first_left + index - part * self.left,
            first,
            min(blocks, row_blocks - first),
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


@fieldwise_init
struct UnitDivisors(KernelArgument):
    """What units are divided by."""

    comptime NAME = StaticString("unit_divisors")
    """The word for these numbers."""

    var panels: Divisor
    """Panels of an expert."""
    var blocks: Divisor
    """Thread blocks."""


@fieldwise_init
struct UnitShare(TrivialRegisterPassable):
    """What a thread block does, and what else its warps need to know."""

    var unit: Int32
    """Its first unit."""
    var end_unit: Int32
    """The unit after its last one."""
    var listed: Int32
    """Groups in the schedule's list."""
    var loses_rows: Int32
    """Whether any rows belong to no expert."""


struct UnitSchedule(TrivialRegisterPassable):
    """The row tiles of the groups that have any, listed in shared memory."""

    var share: SharedPointer[UnitShare]
    """The thread block's share."""
    var tiles: SharedPointer[GroupTiles]
    """The row tiles of each of these groups."""
    var costs: SharedPointer[Int32]
    """What the groups up to and with each cost."""
    var listed: Int32
    """Groups in the list."""
    var tile_rows: Int32
    """Rows of a tile."""
    var divisors: UnitDivisors
    """What units are divided by."""

    @inline(.always)
    def __init__(
        out self,
        place: SharedPointer[UInt8],
        problem: MatmulProblem,
        tile_rows: Int32,
        divisors: UnitDivisors,
    ):
        """Makes an empty schedule.

        Args:
            place: Its shared memory.
            problem: The operands and their sizes.
            tile_rows: Rows of a tile.
            divisors: What units are divided by.
        """
        self.share = place.unsafe_bitcast[UnitShare]()
        self.tiles = self.share.unsafe_offset(1).unsafe_bitcast[GroupTiles]()
        self.costs = self.tiles.unsafe_offset(
            Int(problem.groups)
        ).unsafe_bitcast[Int32]()
        self.listed = 0
        self.tile_rows = tile_rows
        self.divisors = divisors

    @staticmethod
    def shared_bytes(groups: Int) -> Int:
        """Sizes the list.

        Args:
            groups: Groups.

        Returns:
            Its bytes of shared memory.
        """
        return size_of[UnitShare]() + groups * (
            size_of[GroupTiles]() + size_of[Int32]()
        )

    @inline(.always)
    def build[equal_tiles: Bool](mut self, problem: MatmulProblem) -> UnitShare:
        """Fills the list, and finds the block's share, with all of its threads.

        Groups of no expert have no row tiles.

        Parameters:
            equal_tiles: Whether all row tiles cost the same.

        Args:
            problem: The operands and their sizes.

        Returns:
            The share.
        """
        # One warp does it, and the others wait once: what takes long is that one
        # result waits for the other, and not how many there are.
        if warp_id() == 0:
            if problem.groups <= Int32(WARP_SIZE):
                self._build[1, equal_tiles](problem)
            else:
                self._build[4, equal_tiles](problem)
        barrier()
        var share = self.share[]
        self.listed = share.listed
        return share

    @inline(.always)
    def prefetch(self, problem: MatmulProblem):
        """Starts to bring what `build` reads to L2, with all threads of the block.

        Args:
            problem: The operands and their sizes.
        """
        # A sector each.
        var group = Int32(thread_idx.x) * 8
        if group < problem.groups:
            prefetch_to_l2(problem.starts.unsafe_offset(Int(group)))
            prefetch_to_l2(problem.expert_ids.unsafe_offset(Int(group)))

    @inline(.always)
    def _build[
        lane_groups: Int, equal_tiles: Bool
    ](mut self, problem: MatmulProblem):
        # Each lane takes as many groups that follow each other at once.
        var panels = self.divisors.panels.value
        var row_tiles = Int32(0)
        var cost = Int32(0)
        var lost = False
        # Rows before the first group or after the last belong to nobody.
        var first = _first_row(problem, 0)
        var end = _first_row(problem, problem.groups)
        for base in range(
            Int32(0), problem.groups, Int32(WARP_SIZE * lane_groups)
        ):
            var group = base + Int32(lane_id()) * Int32(lane_groups)
            # Reads do not depend on each other: one wait for all.
            var bounds = StaticTuple[Int32, lane_groups + 2](fill=0)
            comptime for i in range(lane_groups + 2):
                bounds[i] = _first_row(problem, group + Int32(i - 1))
            var lists = StaticTuple[GroupTiles, lane_groups](
                fill=GroupTiles(0, 0, 0, 0)
            )
            comptime for i in range(lane_groups):
                lists[i].expert = problem.expert_ids[
                    unsafe_offset=Int(min(group + Int32(i), problem.groups - 1))
                ]
            var costs = StaticTuple[Int32, lane_groups](fill=0)
            var lane_tiles = Int32(0)
            var lane_cost = Int32(0)
            var lane_listed = Int32(0)
            comptime for i in range(lane_groups):
                # Past the last group there are none.
                var all = max(bounds[i + 2] - bounds[i + 1], 0)
                var rows = all if lists[i].expert >= 0 else 0
                lost = lost or rows < all
                lane_tiles += self._tiles_of(rows)
                lane_cost += self._cost(rows, panels) + self._opening_cost(
                    bounds[i + 1] - bounds[i], rows
                )
                lane_listed += Int32(rows > 0)
                lists[i].end = lane_tiles
                lists[i].first_row = bounds[i + 1]
                lists[i].rows = rows
                costs[i] = lane_cost
            var tiles_through = warp.prefix_sum(lane_tiles)
            var cost_through = warp.prefix_sum(lane_cost)
            var listed_through = warp.prefix_sum(lane_listed)
            var place = self.listed + listed_through - lane_listed
            comptime for i in range(lane_groups):
                if lists[i].rows > 0:
                    lists[i].end += row_tiles + tiles_through - lane_tiles
                    self.tiles[unsafe_offset=Int(place)] = lists[i]
                    self.costs[unsafe_offset=Int(place)] = (
                        cost + cost_through - lane_cost + costs[i]
                    )
                    place += 1
            comptime last = UInt32(WARP_SIZE - 1)
            row_tiles += warp.shuffle_idx(tiles_through, last)
            cost += warp.shuffle_idx(cost_through, last)
            self.listed += warp.shuffle_idx(listed_through, last)
        lost = lost or first > 0 or end < problem.rows or problem.groups == 0
        # All lanes see the list.
        syncwarp()
        # One half of the warp finds where the share begins, the other its end.
        comptime half = WARP_SIZE // 2
        var unit = self._first_unit[equal_tiles](
            row_tiles, cost, Int32(lane_id()) >= Int32(half)
        )
        var end_unit = warp.shuffle_idx(unit, UInt32(half))
        var loses_rows = Int32(warp.vote[.uint32](lost) != 0)
        if lane_id() == 0:
            self.share[] = UnitShare(unit, end_unit, self.listed, loses_rows)

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
        return self._tile_of(
            self.tiles[unsafe_offset=Int(self._find[by_cost=False](index))],
            index,
        )

    @inline(.always)
    def row_tiles(self) -> Int32:
        """Counts the row tiles.

        Returns:
            How many there are, of at least one listed group.
        """
        return self._through[by_cost=False](self.listed - 1)

    @inline(.always)
    def _tile_of(self, group: GroupTiles, index: Int32) -> RowTile:
        # The tiles of this group that come before.
        var skipped = index - (group.end - self._tiles_of(group.rows))
        var first = skipped * self.tile_rows
        return RowTile(
            group.expert,
            group.first_row + first,
            min(self.tile_rows, group.rows - first),
        )

    @inline(.always)
    def _first_unit[
        equal_tiles: Bool
    ](self, row_tiles: Int32, cost: Int32, next: Bool) -> Int32:
        # Where the thread block's share of the units begins, or that of the next one,
        # with all lanes of a warp.
        var panels = self.divisors.panels.value
        var blocks = self.divisors.blocks
        var block = Int32(block_idx.x)
        comptime if equal_tiles:
            return share_start(row_tiles * panels, blocks, block + Int32(next))
        var before_this = share_start(cost, blocks, block)
        var before_next = share_start(cost, blocks, block + 1)
        var place_this = self._find[by_cost=True](before_this)
        var place_next = self._find[by_cost=True](before_next)
        var before = before_next if next else before_this
        var place = max(place_next if next else place_this, 0)
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
        var tile = Int32(0)
        if tiles > 1:
            var full_cost = (Int32(_PANEL_COST) + full_octets) * panels + Int32(
                _RUN_COST
            )
            tile = min(Int32(UInt32(within) // UInt32(full_cost)), tiles - 1)
            within -= tile * full_cost
        var octets = min(
            full_octets, _octets_of(group.rows) - tile * full_octets
        )
        var panel = min(_panels_for(within, octets), panels)
        if before >= cost:
            return row_tiles * panels
        return (group.end - tiles + tile) * panels + panel

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
        """Finds as many row tiles as can share the place of one, with all lanes of a
        warp.

        Args:
            first_tile: The first of them.
            end_tile: The end of those to choose from, more than `first_tile`.

        Returns:
            The run.
        """
        var place = self._find[by_cost=False](first_tile)
        var group = self.tiles[unsafe_offset=Int(place)]
        var first = self._tile_of(group, first_tile)
        var run = TileRun(first_tile + 1, first.first, first.count)
        while run.end_tile < end_tile:
            if run.end_tile == group.end:
                place += 1
                group = self.tiles[unsafe_offset=Int(place)]
            var next = self._tile_of(group, run.end_tile)
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


@inline(.always)
def _panels_for(cost: Int32, octets: Int32) -> Int32:
    # How many cost no less. Divisions by numbers that are known.
    var panels = Int32(0)
    comptime for known in range(1, WARP_SIZE // 8 + 1):
        if octets == Int32(known):
            panels = Int32(ceildiv(UInt32(cost), UInt32(_PANEL_COST + known)))
    return panels


@inline(.always)
def _first_row(problem: MatmulProblem, group: Int32) -> Int32:
    # Of a group from -1 on; past the last one, their end.
    var place = max(min(group, problem.groups), 0)
    var first = Int32(
        min(problem.starts[unsafe_offset=Int(place)], UInt32(problem.rows))
    )
    return first if group >= 0 else 0
