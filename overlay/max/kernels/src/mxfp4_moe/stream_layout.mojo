# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where the streaming matmul keeps things in shared memory."""

from std.math import ceildiv
from std.memory import Pointer

from max.gpu import WARP_SIZE

from .mxfp4 import BLOCK_ELEMENTS
from .problem import MatmulProblem
from .stream_schedule import PANEL_FEATURES, UnitSchedule

comptime SharedPointer[T: AnyType] = Pointer[
    T, MutUntrackedOrigin, address_space=.SHARED
]
"""A place in a thread block's shared memory.

Parameters:
    T: What lies there.
"""

comptime LANE_ROWS = 2
"""Weight rows of a panel that a lane reads: two neighbouring features."""

comptime HALF_BLOCKS = 4
"""MXFP4 blocks of a weight row in half a step: one for each lane of a quad."""

comptime HALF_DEPTH = HALF_BLOCKS * BLOCK_ELEMENTS
"""Elements along K of half a step."""

comptime HALF_BYTES = PANEL_FEATURES * HALF_DEPTH // 2
"""Packed elements that a warp reads at half a step."""

comptime STEP_BLOCKS = 2 * HALF_BLOCKS
"""MXFP4 blocks of a weight row in a step."""

comptime STEP_BYTES = 2 * HALF_BYTES
"""Packed elements that a warp reads at a step."""

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
    """Steps of weights that a warp keeps on their way."""

    comptime FEW_ROWS = Self(1, 12, 3)
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

    In order: each warp's slots, each warp's two sets of scales, activations,
    the rows' sources, the schedule.

    Parameters:
        shape: How a thread block works.
    """

    var depth: Int
    """Length of the sum, K."""
    var groups: Int
    """Expert groups."""

    @inline(.always)
    def steps(self) -> Int:
        """Counts the steps along K.

        Returns:
            The steps, the last one perhaps not full.
        """
        return ceildiv(self.row_blocks(), STEP_BLOCKS)

    @inline(.always)
    def halves(self) -> Int:
        """Counts the half steps along K.

        Returns:
            The half steps, the last one perhaps not full.
        """
        return ceildiv(self.row_blocks(), HALF_BLOCKS)

    @inline(.always)
    def row_blocks(self) -> Int:
        """Counts the blocks of a weight row.

        Returns:
            The blocks.
        """
        return self.depth // BLOCK_ELEMENTS

    @inline(.always)
    def scale_bytes(self) -> Int:
        """Counts the scales of a panel.

        Returns:
            The scales, a byte each.
        """
        return PANEL_FEATURES * self.row_blocks()

    @inline(.always)
    def slots(self, warp: Int) -> Int:
        """Finds a warp's slots.

        Args:
            warp: The warp.

        Returns:
            Where they start.
        """
        return warp * Self.shape.slots * STEP_BYTES

    @inline(.always)
    def scales(self, warp: Int, set: Int) -> Int:
        """Finds one of a warp's two sets of scales.

        Args:
            warp: The warp.
            set: The set, 0 or 1.

        Returns:
            Where it starts.
        """
        return (
            self.slots(Self.shape.warps) + (2 * warp + set) * self.scale_bytes()
        )

    @inline(.always)
    def activations(self) -> Int:
        """Finds the activations.

        Returns:
            Where they start.
        """
        return self.scales(Self.shape.warps, 0)

    @inline(.always)
    def sources(self) -> Int:
        """Finds the rows' sources.

        Returns:
            Where they start.
        """
        return (
            self.activations()
            + self.halves() * HALF_DEPTH * Self.shape.rows() * 2
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

        Shared memory must hold everything, the features must make whole
        panels, so that their scales start at 16 bytes, and a warp's slots must
        not reach past a panel.

        Args:
            problem: The operands and their sizes.

        Returns:
            Whether it does.
        """
        var layout = Self(Int(problem.depth), Int(problem.groups))
        return (
            Int(problem.features) % PANEL_FEATURES == 0
            and layout.steps() >= Self.shape.slots
            and layout.shared_bytes() <= _MAX_SHARED_BYTES
        )
