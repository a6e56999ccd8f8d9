# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where the streaming matmul keeps things in shared memory."""

from std.math import align_up
from std.sys import size_of

from max.gpu import WARP_SIZE

from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .problem import MatmulProblem
from .stream_schedule import UnitSchedule

comptime CHUNK_BLOCKS = 15
"""Blocks along K that a warp copies at once."""

comptime CHUNK_SCALES = CHUNK_BLOCKS * PANEL_BLOCK_BYTES
"""Where a chunk's scales start, behind its packed elements."""

comptime CHUNK_BYTES = CHUNK_SCALES + CHUNK_BLOCKS * PANEL_FEATURES
"""Bytes of a chunk: a multiple of 16, as copies ask."""

comptime _ALIGNMENT = 16
"""What the widest loads ask."""

comptime _MAX_SHARED_BYTES = 226 * 1024
"""What a thread block can have on Hopper, less 1 KiB for block reductions."""


@fieldwise_init
struct StreamShape(TrivialRegisterPassable):
    """How a thread block works.

    The constants were chosen by measurement: see `docs/kernel-log.md`.
    """

    var row_octets: Int
    """Groups of eight rows of a row tile."""
    var warps: Int
    """Warps of a thread block, one block an SM."""
    var slots: Int
    """Chunks of weights that a warp keeps on their way."""

    comptime FEW_ROWS = Self(1, 16, 2)
    """Up to eight rows an expert."""

    comptime SOME_ROWS = Self(2, 16, 2)
    """Up to sixteen rows an expert."""

    @inline(.always)
    def rows(self) -> Int:
        """Counts the rows of a row tile.

        Returns:
            Eight for each octet.
        """
        return self.row_octets * 8

    @inline(.always)
    def threads(self) -> Int:
        """Counts the threads of a thread block.

        Returns:
            The threads.
        """
        return self.warps * WARP_SIZE


@fieldwise_init
struct StreamLayout[shape: StreamShape](TrivialRegisterPassable):
    """Offsets into a block's shared memory, in bytes.

    In order: each warp's slots, their barriers, activations, the rows' sources,
    the schedule.

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
        return warp * Self.shape.slots * CHUNK_BYTES

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
    def activations(self) -> Int:
        """Finds the activations.

        Returns:
            Where they start.
        """
        return align_up(self.barriers(Self.shape.warps), _ALIGNMENT)

    @inline(.always)
    def sources(self) -> Int:
        """Finds the rows' sources.

        Returns:
            Where they start.
        """
        return (
            self.activations()
            + self.depth * Self.shape.rows() * size_of[BFloat16]()
        )

    @inline(.always)
    def schedule(self) -> Int:
        """Finds the schedule.

        Returns:
            Where it starts.
        """
        return self.sources() + Self.shape.rows() * 4

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
