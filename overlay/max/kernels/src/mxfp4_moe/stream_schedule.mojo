# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How thread blocks share the weights that a routing selected.

A unit of work is one panel met by one row tile:
up to a tile's rows of one group. Units are numbered along the features of the
first row tile, then of the second, and each thread block takes an equal,
contiguous range of them. So the weights are read evenly whatever the routing.

Tiles are seldom full, so those that follow each other share the place in shared
memory that one full tile needs: a run. Only between runs must a block's warps
wait for each other.
"""

from std.math import ceildiv
from std.memory import Pointer
from std.sys import size_of

from max.gpu import WARP_SIZE, lane_id, thread_idx, warp_id
from max.gpu.primitives import warp
from max.gpu.sync import barrier

from .problem import MatmulProblem
from .tile_schedule import RowTile


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
struct UnitSchedule(TrivialRegisterPassable):
    """The row tiles of all groups, listed in shared memory."""

    var tiles: Pointer[GroupTiles, MutUntrackedOrigin, address_space=.SHARED]
    """The row tiles of each group."""
    var groups: Int32
    """Groups."""
    var tile_rows: Int32
    """Rows of a tile."""

    @staticmethod
    def shared_bytes(groups: Int) -> Int:
        """Sizes the list.

        Args:
            groups: Groups.

        Returns:
            Its bytes of shared memory.
        """
        return groups * size_of[GroupTiles]()

    @inline(.always)
    def build(self, problem: MatmulProblem, threads: Int) -> Int32:
        """Fills the list, together with all threads of the block.

        Args:
            problem: The operands and their sizes.
            threads: Threads of the block.

        Returns:
            The number of row tiles. Groups of no expert have none.
        """
        for group in range(Int(thread_idx.x), Int(self.groups), threads):
            var first, end = problem.group_bounds(group)
            var expert = problem.group_expert(group)
            var rows = Int32(end - first) if expert >= 0 else 0
            self.tiles[unsafe_offset=group] = GroupTiles(
                self._tiles_of(rows), Int32(expert), Int32(first), rows
            )
        barrier()
        if warp_id() == 0:
            var before = Int32(0)
            for base in range(0, Int(self.groups), WARP_SIZE):
                var group = base + Int(lane_id())
                var count = Int32(0)
                if group < Int(self.groups):
                    count = self.tiles[unsafe_offset=group].end
                var through = before + warp.prefix_sum(count)
                if group < Int(self.groups):
                    self.tiles[unsafe_offset=group].end = through
                before = warp.shuffle_idx(through, UInt32(WARP_SIZE - 1))
        barrier()
        return self.tiles[unsafe_offset=Int(self.groups - 1)].end

    @inline(.always)
    def _tiles_of(self, rows: Int32) -> Int32:
        # 32 bits without a sign: 64 of them take a hundred instructions.
        return Int32(ceildiv(UInt32(rows), UInt32(self.tile_rows)))

    @inline(.always)
    def row_tile(self, index: Int32) -> RowTile:
        """Finds a row tile.

        Args:
            index: The row tile, less than `build` returned.

        Returns:
            Its expert and rows.
        """
        var low = Int32(0)
        var high = self.groups - 1
        while low < high:
            var middle = (low + high) >> 1
            if self.tiles[unsafe_offset=Int(middle)].end > index:
                high = middle
            else:
                low = middle + 1
        var group = self.tiles[unsafe_offset=Int(low)]
        # The tiles of this group that come before.
        var skipped = index - (group.end - self._tiles_of(group.rows))
        var first = skipped * self.tile_rows
        return RowTile(
            group.expert,
            group.first_row + first,
            min(self.tile_rows, group.rows - first),
        )

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
