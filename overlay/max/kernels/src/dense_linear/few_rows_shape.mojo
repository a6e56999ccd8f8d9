# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How thread blocks share a layer of few rows out, and their shared memory."""

from std.math import ceildiv
from std.sys import size_of

from max.gpu import WARP_SIZE
from max.gpu.globals import WARPGROUP_SIZE

comptime MAX_ROWS = 64
"""The most rows."""

comptime TILE_FEATURES = 64
"""Features of a block: those of a `wgmma`, whose A they are."""

comptime STEP_DEPTH = 64
"""Elements along K of a step: 128 bytes, the widest swizzle."""

comptime STEP_BYTES = STEP_DEPTH * 2
"""Bytes of a step in a row of weights or activations."""

comptime WEIGHT_BYTES = TILE_FEATURES * STEP_BYTES
"""Bytes of a step's weights."""

comptime CONSUMER_THREADS = WARPGROUP_SIZE
"""Threads that multiply."""

comptime THREADS = CONSUMER_THREADS + WARP_SIZE
"""Threads of a block. One of the last warp copies."""

comptime OCTET_SUMS = TILE_FEATURES * 8
"""Sums of a tile's eight rows."""

comptime _GPU_BLOCKS = 132
# The multiprocessors of an H100 or H200.

comptime _MAX_SLICES = 8
# As many blocks as there may be in a cluster.

comptime _STAGE_BYTES = 112 * 1024
# So that a multiprocessor has room for two blocks, and a layer's first weights are
# on their way while the kernel before it, which may be such a layer, ends.

comptime _ROW_STAGES = 6
# Activations come from L2, and are not as long on their way as weights.


@fieldwise_init
struct FewRowsShape(TrivialRegisterPassable):
    """How thread blocks share a layer out."""

    var row_octets: Int
    """Groups of eight rows: 1, 2, 4 or 8."""
    var slices: Int
    """Slices of K, each a block of the cluster: 1, 2, 4 or 8."""

    @staticmethod
    def of(features: Int, depth: Int, row_octets: Int) -> Self:
        """Chooses the shape for a layer.

        Args:
            features: N.
            depth: K.
            row_octets: Groups of eight rows.

        Returns:
            The shape.
        """
        var shape = Self(row_octets, 1)
        while (
            2 * shape.slices <= min(_MAX_SLICES, ceildiv(depth, STEP_DEPTH))
            and 2 * shape.blocks(features) <= _GPU_BLOCKS
        ):
            shape.slices *= 2
        return shape

    @staticmethod
    def takes(features: Int, depth: Int) -> Bool:
        """Tells whether there is a shape for a layer.

        Args:
            features: N.
            depth: K.

        Returns:
            Whether its blocks run all at once and its rows, of which the copy
            engine asks for multiples of 16 bytes, can be copied.
        """
        return (
            features % 8 == 0
            and depth % 8 == 0
            and ceildiv(features, TILE_FEATURES) <= 2 * _GPU_BLOCKS
        )

    @inline(.always)
    def rows(self) -> Int:
        """Counts the rows that there is room for.

        Returns:
            The rows.
        """
        return self.row_octets * 8

    @inline(.always)
    def blocks(self, features: Int) -> Int:
        """Counts the thread blocks.

        Args:
            features: N.

        Returns:
            The blocks.
        """
        return ceildiv(features, TILE_FEATURES) * self.slices

    @inline(.always)
    def slice_steps(self, depth: Int) -> Int:
        """Counts the steps of the longest slice.

        Args:
            depth: K.

        Returns:
            The steps.
        """
        return ceildiv(ceildiv(depth, STEP_DEPTH), self.slices)

    @inline(.always)
    def row_bytes(self) -> Int:
        """Counts the bytes of a step's activations.

        Returns:
            The bytes, a multiple of 1024 as the swizzle asks.
        """
        return self.rows() * STEP_BYTES

    @inline(.always)
    def row_stages(self, depth: Int) -> Int:
        """Counts the steps whose activations there is room for.

        Args:
            depth: K.

        Returns:
            The stages, no more than of weights.
        """
        var steps = self.slice_steps(depth)
        var both = _STAGE_BYTES // (WEIGHT_BYTES + self.row_bytes())
        return steps if both >= steps else min(both, _ROW_STAGES)

    @inline(.always)
    def weight_stages(self, depth: Int) -> Int:
        """Counts the steps whose weights there is room for.

        Args:
            depth: K.

        Returns:
            The stages.
        """
        var room = _STAGE_BYTES - self.row_stages(depth) * self.row_bytes()
        return min(self.slice_steps(depth), room // WEIGHT_BYTES)

    @inline(.always)
    def first_rows(self, depth: Int) -> Int:
        """Finds the stages of activations.

        Args:
            depth: K.

        Returns:
            Where they start, behind those of weights.
        """
        return self.weight_stages(depth) * WEIGHT_BYTES

    @inline(.always)
    def own_octets(self) -> Int:
        """Counts the groups of eight rows whose sums a block adds up at most.

        Returns:
            The groups.
        """
        return ceildiv(self.row_octets, self.slices)

    @inline(.always)
    def received_bytes(self, rows: Int32, slice: Int32) -> Int32:
        """Counts what the other blocks of a cluster send to one.

        Args:
            rows: The rows that exist.
            slice: The block's slice of K.

        Returns:
            The bytes.
        """
        var octets = (rows + 7) // 8
        var own = (octets - slice + Int32(self.slices - 1)) // Int32(
            self.slices
        )
        return own * Int32((self.slices - 1) * OCTET_SUMS * size_of[Float32]())

    @inline(.always)
    def barriers(self, depth: Int) -> Int:
        """Finds the barriers.

        Args:
            depth: K.

        Returns:
            Where they start, behind the stages, whose place sums take.
        """
        return max(
            self.first_rows(depth) + self.row_stages(depth) * self.row_bytes(),
            (self.slices - 1)
            * self.own_octets()
            * OCTET_SUMS
            * size_of[Float32](),
        )

    @inline(.always)
    def shared_bytes(self, depth: Int) -> Int:
        """Sizes a block's shared memory.

        Args:
            depth: K.

        Returns:
            The bytes.
        """
        return self.barriers(depth) + size_of[UInt64]() * (
            2 * self.weight_stages(depth) + self.row_stages(depth) + 1
        )
