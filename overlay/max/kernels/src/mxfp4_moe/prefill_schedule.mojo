# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Which tiles the thread blocks of the prefill matmul compute.

A group's rows are cut into as few row tiles as hold them, as equal as units of
rows allow. Tiles are numbered group by group, features outermost within a group,
and block `b` of `B` takes the tiles `b`, `b + B`, ...: at any time the blocks
work on neighbouring tiles, whose weights and activations they share through L2.
"""

from std.math import ceildiv
from std.memory import Pointer

from max.gpu import WARP_SIZE, lane_id, thread_idx, warp_id
from max.gpu.primitives import warp
from max.gpu.sync import barrier

from .problem import MatmulProblem


@fieldwise_init
struct GroupRows(TrivialRegisterPassable):
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
struct PrefillTile(TrivialRegisterPassable):
    """Some rows of one group at some features."""

    var expert: Int32
    """The expert."""
    var first_row: Int32
    """The first routed row."""
    var rows: Int32
    """Rows that exist."""
    var row_units: Int32
    """Units of rows that are computed."""
    var first_feature: Int32
    """The first feature."""


@fieldwise_init
struct PrefillSchedule[tile_features: Int, tile_rows: Int, row_unit: Int](
    TrivialRegisterPassable
):
    """All tiles, from a list of the groups in shared memory.

    Parameters:
        tile_features: Features of a tile.
        tile_rows: Most rows of a tile, a multiple of `row_unit`.
        row_unit: A tile computes a multiple of as many rows.
    """

    var list: Pointer[GroupRows, MutUntrackedOrigin, address_space=.SHARED]
    """The groups, behind one entry that has all of their row tiles, and as `rows`
    the most units of rows that a tile computes."""
    var groups: Int32
    """How many."""
    var feature_tiles: Int32
    """Tiles along the features."""

    @inline(.always)
    def build(self, problem: MatmulProblem, threads: Int):
        """Fills the list, together with all threads of the block.

        Args:
            problem: The operands and their sizes.
            threads: Threads of the block.
        """
        for group in range(Int(thread_idx.x), Int(self.groups), threads):
            var first, end = problem.group_bounds(group)
            var expert = problem.group_expert(group)
            var rows = end - first if expert >= 0 else 0
            self.list[unsafe_offset=1 + group] = GroupRows(
                Int32(ceildiv(rows, Self.tile_rows)),
                Int32(expert),
                Int32(first),
                Int32(rows),
            )
        barrier()
        if warp_id() == 0:
            var before = Int32(0)
            var most = Int32(0)
            for base in range(0, Int(self.groups), WARP_SIZE):
                var group = base + Int(lane_id())
                var count = Int32(0)
                if group < Int(self.groups):
                    count = self.list[unsafe_offset=1 + group].end
                    if count > 0:
                        most = max(
                            most,
                            ceildiv(
                                self.list[unsafe_offset=1 + group].rows,
                                count * Int32(Self.row_unit),
                            ),
                        )
                var through = before + warp.prefix_sum(count)
                if group < Int(self.groups):
                    self.list[unsafe_offset=1 + group].end = through
                before = warp.shuffle_idx(through, UInt32(WARP_SIZE - 1))
            most = warp.max(most)
            if lane_id() == 0:
                self.list[].end = before
                self.list[].rows = most
        barrier()

    @inline(.always)
    def tiles(self) -> Int32:
        """Returns the number of tiles. Groups of no expert have none.

        Returns:
            The number.
        """
        return self.list[].end * self.feature_tiles

    @inline(.always)
    def most_row_units(self) -> Int32:
        """Returns the most units of rows that a tile computes.

        Returns:
            The number, at least 1 where there are tiles.
        """
        return max(self.list[].rows, 1)

    @inline(.always)
    def tile(self, index: Int32) -> PrefillTile:
        """Finds a tile.

        Args:
            index: The tile, less than `tiles`.

        Returns:
            The tile.
        """
        # The group whose tiles hold this one.
        var row_tile = Int32(UInt32(index) // UInt32(self.feature_tiles))
        var low = Int32(0)
        var high = self.groups
        while low < high:
            var middle = (low + high) >> 1
            if self.list[unsafe_offset=1 + Int(middle)].end > row_tile:
                high = middle
            else:
                low = middle + 1
        var group = self.list[unsafe_offset=1 + Int(low)]
        var row_tiles = ceildiv(UInt32(group.rows), UInt32(Self.tile_rows))
        var in_group = UInt32(index) - (UInt32(group.end) - row_tiles) * UInt32(
            self.feature_tiles
        )
        var feature_tile = in_group // row_tiles
        var part = in_group - feature_tile * row_tiles
        var units = ceildiv(UInt32(group.rows), UInt32(Self.row_unit))
        var least = units // row_tiles
        var larger = units - least * row_tiles
        var first = Int32(
            (part * least + min(part, larger)) * UInt32(Self.row_unit)
        )
        var row_units = Int32(least)
        if part < larger:
            row_units += 1
        return PrefillTile(
            group.expert,
            group.first_row + first,
            min(row_units * Int32(Self.row_unit), group.rows - first),
            row_units,
            Int32(feature_tile) * Int32(Self.tile_features),
        )
