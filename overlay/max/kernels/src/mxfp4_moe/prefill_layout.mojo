# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where the prefill matmul keeps things in shared memory."""

from std.math import align_up, ceildiv
from std.sys import size_of

from max.gpu.globals import WARPGROUP_SIZE

from .kernel_argument import KernelArgument
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_operands import TileOperands
from .prefill_schedule import GroupRows
from .prefill_sums import ROW_UNIT
from .problem import MatmulProblem

comptime CONSUMERS = 3
"""Warpgroups that multiply."""

comptime CONSUMER_THREADS = CONSUMERS * WARPGROUP_SIZE
"""Their threads."""

comptime PRODUCER_THREADS = WARPGROUP_SIZE
"""The others: a warpgroup as well, for these share registers out. One of them
copies, and those of its other warps prepare operands."""

comptime THREADS = CONSUMER_THREADS + PRODUCER_THREADS
"""Threads of a thread block."""

comptime WGMMA_FEATURES = 64
"""Rows of A in a `wgmma`: the features of a consumer."""

comptime TILE_FEATURES = CONSUMERS * WGMMA_FEATURES
"""Features of a tile."""

comptime TILE_ROWS = 192
"""Most rows of a tile: their sums take 96 of a lane's 160 registers."""

comptime STEP_DEPTH = 64
"""Elements along K of a step: 128 bytes of a row, the widest swizzle."""

comptime STEP_BLOCKS = STEP_DEPTH // BLOCK_ELEMENTS
"""MXFP4 blocks of a weight row in a step."""

comptime ROW_BYTES = STEP_DEPTH * 2
"""Bytes of a row of activations in a step."""

comptime BOX_ROWS = 16
"""Rows that are copied together. The last ones may be more than are computed."""

comptime PANEL_STEP_BYTES = STEP_BLOCKS * PANEL_BLOCK_BYTES
"""Packed bytes of a panel in a step."""

comptime TILE_PANELS = TILE_FEATURES // PANEL_FEATURES
"""Panels of a tile: one for each consumer warp."""

comptime MAX_STAGES = 16
"""Most steps that there is room for: tiles of up to 48 rows have as many."""

comptime _MIN_STAGES = 4
"""Fewest stages of the largest tile: two that are multiplied or about to be, and
two on their way."""

comptime WEIGHT_BYTES = TILE_PANELS * PANEL_STEP_BYTES
"""Bytes of a step's weights: they come first in a stage, and take a multiple of
1024 as the swizzle of the rows behind them asks."""

comptime SETS = 2
"""Tiles whose operands there is room for."""

comptime PrefillOperands = TileOperands[TILE_ROWS, TILE_FEATURES]
"""What else a tile needs."""

comptime SHARED_BYTES = 227 * 1024
"""What a thread block can have on Hopper, and takes."""


@inline(.always)
def stage_bytes(row_units: Int32) -> Int32:
    """Returns the shared memory of a stage.

    Args:
        row_units: Rows of the largest tile, in units of `ROW_UNIT`.

    Returns:
        The bytes: a multiple of 1024.
    """
    return Int32(WEIGHT_BYTES) + row_boxes(row_units) * Int32(
        BOX_ROWS * ROW_BYTES
    )


@inline(.always)
def row_boxes(row_units: Int32) -> Int32:
    """Returns how many boxes have a tile's rows.

    Args:
        row_units: Its rows, in units of `ROW_UNIT`.

    Returns:
        The boxes.
    """
    comptime units = Int32(BOX_ROWS // ROW_UNIT)
    return Int32(UInt32(row_units + units - 1) // UInt32(units))


struct PrefillLayout(KernelArgument):
    """Offsets into a block's shared memory, in bytes, and the numbers they need.

    In order: barriers, two sets of a tile's scales, of its other operands, the
    schedule, and as many stages as fit the rest. The host makes it, so that the
    kernel keeps no register for any of it.
    """

    comptime NAME = StaticString("prefill_layout")
    """The word for this argument."""

    comptime BARRIERS = 2 * MAX_STAGES + 3 * SETS
    """Barriers in all."""

    var steps: Int32
    """Steps of a tile."""
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
        self.steps = ceildiv(problem.depth, Int32(STEP_DEPTH))
        self.row_blocks = problem.depth // Int32(BLOCK_ELEMENTS)
        self.feature_tiles = ceildiv(problem.features, Int32(TILE_FEATURES))
        self.groups = problem.groups

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
            The offset: a multiple of 16.
        """
        comptime first = align_up(Self.BARRIERS * size_of[UInt64](), 16)
        return Int32(first) + set * self.scale_bytes()

    @inline(.always)
    def operands(self, set: Int32) -> Int32:
        """Returns where a tile's other operands start.

        Args:
            set: 0 or 1.

        Returns:
            The offset: a multiple of 16.
        """
        return self.scales(Int32(SETS)) + set * Int32(PrefillOperands.BYTES)

    @inline(.always)
    def schedule(self) -> Int32:
        """Returns where the schedule starts.

        Returns:
            The offset: a multiple of 16.
        """
        return self.operands(Int32(SETS))

    @inline(.always)
    def first_stage(self) -> Int32:
        """Returns where the stages start.

        Returns:
            The offset: a multiple of 1024.
        """
        return align_up(
            self.schedule() + (self.groups + 1) * Int32(size_of[GroupRows]()),
            Int32(1024),
        )

    @inline(.always)
    def stages(self, row_units: Int32) -> Int32:
        """Returns how many stages there are.

        Args:
            row_units: Rows of the largest tile, in units of `ROW_UNIT`.

        Returns:
            The stages.
        """
        var room = Int32(SHARED_BYTES) - self.first_stage()
        return min(Int32(MAX_STAGES), room // stage_bytes(row_units))

    @staticmethod
    def fits(problem: MatmulProblem) -> Bool:
        """Returns whether the kernel can take a problem.

        Args:
            problem: The operands and their sizes.

        Returns:
            True if it can.
        """
        var layout = Self(problem)
        return (
            Int(problem.features) % PANEL_FEATURES == 0
            and layout.steps >= Int32(_MIN_STAGES)
            and layout.stages(Int32(TILE_ROWS // ROW_UNIT))
            >= Int32(_MIN_STAGES)
        )
