# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where the prefill matmul keeps things in shared memory."""

from std.math import ceildiv
from std.sys import size_of

from max.gpu.globals import WARPGROUP_SIZE

from .kernel_argument import KernelArgument
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_operands import TileOperands
from .prefill_schedule import GroupRows
from .problem import MatmulProblem

comptime CONSUMERS = 3
"""Warpgroups that multiply."""

comptime CONSUMER_THREADS = CONSUMERS * WARPGROUP_SIZE
"""Their threads."""

comptime PRODUCER_THREADS = WARPGROUP_SIZE
"""Threads that copy: a warpgroup as well, for these share registers out."""

comptime THREADS = CONSUMER_THREADS + PRODUCER_THREADS
"""Threads of a thread block."""

comptime WGMMA_FEATURES = 64
"""Rows of A in a `wgmma`: the features of a consumer."""

comptime TILE_FEATURES = CONSUMERS * WGMMA_FEATURES
"""Features of a tile."""

comptime TILE_ROWS = 176
"""Most rows of a tile: their sums take 88 of a lane's 152 registers, and with 192
rows `ptxas` runs one `wgmma` at a time."""

comptime STEP_DEPTH = 64
"""Elements along K of a step: 128 bytes of a row, the widest swizzle."""

comptime STEP_BLOCKS = STEP_DEPTH // BLOCK_ELEMENTS
"""MXFP4 blocks of a weight row in a step."""

comptime ROW_BYTES = STEP_DEPTH * 2
"""Bytes of a row of activations in a step."""

comptime PANEL_STEP_BYTES = STEP_BLOCKS * PANEL_BLOCK_BYTES
"""Packed bytes of a panel in a step."""

comptime TILE_PANELS = TILE_FEATURES // PANEL_FEATURES
"""Panels of a tile: one for each consumer warp."""

comptime MAX_STAGES = 7
"""Most steps that there is room for, with K up to some 2,100."""

comptime _MIN_STAGES = 4
"""Two on their way, one handed over, and one that is still multiplied until the
next has come."""

comptime WEIGHTS = TILE_ROWS * ROW_BYTES
"""Where a stage's weights start, behind its activations."""

comptime STAGE_BYTES = WEIGHTS + TILE_PANELS * PANEL_STEP_BYTES
"""Shared memory of a stage: a multiple of 1024, as the swizzle asks."""

comptime PrefillOperands = TileOperands[TILE_ROWS, TILE_FEATURES]
"""What else a tile needs."""

comptime _MAX_SHARED_BYTES = 227 * 1024
"""What a thread block can have on Hopper."""


struct PrefillLayout(KernelArgument):
    """Offsets into a block's shared memory, in bytes, and the numbers they need.

    In order: stages, two sets of a tile's scales, barriers, two sets of a tile's
    other operands, the schedule. The host makes it, so that the kernel keeps no
    register for any of it.
    """

    comptime NAME = StaticString("prefill_layout")
    """The word for this argument."""

    var steps: Int32
    """Steps of a tile."""
    var stages: Int32
    """Steps that there is room for."""
    var row_blocks: Int32
    """MXFP4 blocks of a weight row."""
    var feature_tiles: Int32
    """Tiles along the features."""
    var groups: Int32
    """Expert groups."""

    def __init__(out self, problem: MatmulProblem):
        """Lays out shared memory for a problem.

        Args:
            problem: The operands and their sizes.
        """
        var steps = ceildiv(problem.depth, Int32(STEP_DEPTH))
        self.steps = steps
        self.stages = 0
        self.row_blocks = problem.depth // Int32(BLOCK_ELEMENTS)
        self.feature_tiles = ceildiv(problem.features, Int32(TILE_FEATURES))
        self.groups = problem.groups
        # With a step for each stage, a tile's first stages are free again only
        # when the tile before is done with its scales and its epilogue: two sets
        # suffice.
        var room = Int32(_MAX_SHARED_BYTES) - self.shared_bytes()
        # `steps` and not `self.steps`, of which Mojo 1.2 here reads nothing.
        self.stages = min(Int32(MAX_STAGES), steps, room // Int32(STAGE_BYTES))

    @inline(.always)
    def scale_bytes(self) -> Int32:
        """Returns the bytes of a set of scales: one for each block of a tile.

        Returns:
            The bytes.
        """
        return Int32(TILE_FEATURES) * self.row_blocks

    @inline(.always)
    def scales(self, set: Int32) -> Int32:
        """Returns where a set of scales starts.

        Args:
            set: 0 or 1.

        Returns:
            The offset.
        """
        return self.stages * Int32(STAGE_BYTES) + set * self.scale_bytes()

    @inline(.always)
    def barriers(self) -> Int32:
        """Returns where the barriers start.

        Returns:
            The offset.
        """
        return self.scales(2)

    @inline(.always)
    def operands(self, set: Int32) -> Int32:
        """Returns where a tile's other operands start.

        Args:
            set: 0 or 1.

        Returns:
            The offset.
        """
        return (
            self.barriers()
            + Int32(2 * MAX_STAGES * size_of[UInt64]())
            + set * Int32(PrefillOperands.BYTES)
        )

    @inline(.always)
    def schedule(self) -> Int32:
        """Returns where the schedule starts.

        Returns:
            The offset.
        """
        return self.operands(2)

    @inline(.always)
    def shared_bytes(self) -> Int32:
        """Returns the shared memory of a block.

        Returns:
            The bytes.
        """
        return self.schedule() + (self.groups + 1) * Int32(size_of[GroupRows]())

    @staticmethod
    def fits(problem: MatmulProblem) -> Bool:
        """Returns whether the kernel can take a problem.

        Args:
            problem: The operands and their sizes.

        Returns:
            True if it can.
        """
        var layout = Self(problem)
        return Int(
            problem.features
        ) % PANEL_FEATURES == 0 and layout.stages >= Int32(_MIN_STAGES)
