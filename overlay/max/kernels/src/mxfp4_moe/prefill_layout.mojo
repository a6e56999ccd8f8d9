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

comptime PRODUCER_THREADS = WARPGROUP_SIZE
"""Threads that do not multiply: a warpgroup, for those share registers out. One of
them copies, and those of its other warps prepare operands."""

comptime WGMMA_FEATURES = 64
"""Rows of A in a `wgmma`: the features of a consumer."""

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

comptime MAX_STAGES = 16
"""Most steps that there is room for."""

comptime _MIN_STAGES = 4
"""Fewest stages of the largest tile: two that are multiplied or about to be, and
two on their way."""

comptime SETS = 2
"""Tiles whose operands there is room for."""

comptime SHARED_BYTES = 227 * 1024
"""What a thread block can have on Hopper, and takes."""

comptime PRODUCER_REGISTERS = 32
"""Registers of a producer's thread, once those that multiply have theirs."""

comptime _SM_REGISTERS = 65536


@fieldwise_init
struct PrefillShape(TrivialRegisterPassable):
    """How a thread block works, one an SM.

    More consumers hide more of each other's latencies, and have fewer registers for
    sums. The constants were chosen by measurement: see `docs/kernel-log.md`.
    """

    var consumers: Int
    """Warpgroups that multiply."""
    var tile_rows: Int
    """Most rows of a tile: half as many registers of a lane have their sums."""

    comptime FEW_ROWS = Self(4, 96)
    """Experts of some 20 to 70 rows."""

    comptime MANY_ROWS = Self(3, 192)
    """Experts of more."""

    @inline(.always)
    def consumer_threads(self) -> Int:
        """Counts the threads that multiply.

        Returns:
            The threads.
        """
        return self.consumers * WARPGROUP_SIZE

    @inline(.always)
    def threads(self) -> Int:
        """Counts the threads of a thread block.

        Returns:
            The threads.
        """
        return self.consumer_threads() + PRODUCER_THREADS

    @inline(.always)
    def consumer_registers(self) -> Int:
        """Counts the registers that a thread takes before it multiplies.

        Returns:
            The registers: what the producer leaves of those that the block begins
            with, as many in each thread.
        """
        var begun = _SM_REGISTERS // self.threads() // 8 * 8
        return (
            (begun * (self.consumers + 1) - PRODUCER_REGISTERS)
            // self.consumers
            // 8
            * 8
        )

    @inline(.always)
    def tile_features(self) -> Int:
        """Counts the features of a tile.

        Returns:
            The features.
        """
        return self.consumers * WGMMA_FEATURES

    @inline(.always)
    def tile_panels(self) -> Int:
        """Counts the panels of a tile.

        Returns:
            The panels: one for each consumer warp.
        """
        return self.tile_features() // PANEL_FEATURES

    @inline(.always)
    def row_units(self) -> Int:
        """Counts the numbers of rows that a tile can compute.

        Returns:
            Its most rows, in units of `ROW_UNIT`.
        """
        return self.tile_rows // ROW_UNIT

    @inline(.always)
    def weight_bytes(self) -> Int:
        """Sizes a step's weights.

        Returns:
            Their bytes: they come first in a stage, and take a multiple of 1024 as
            the swizzle of the rows behind them asks.
        """
        return self.tile_panels() * PANEL_STEP_BYTES


comptime PrefillOperands[shape: PrefillShape] = TileOperands[
    shape.tile_rows, shape.tile_features()
]
"""What else a tile needs.

Parameters:
    shape: How a thread block works.
"""


@inline(.always)
def stage_bytes[shape: PrefillShape](row_units: Int32) -> Int32:
    """Returns the shared memory of a stage.

    Parameters:
        shape: How a thread block works.

    Args:
        row_units: Rows of the largest tile, in units of `ROW_UNIT`.

    Returns:
        The bytes: a multiple of 1024.
    """
    return Int32(shape.weight_bytes()) + row_boxes(row_units) * Int32(
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


struct PrefillLayout[shape: PrefillShape](KernelArgument):
    """Offsets into a block's shared memory, in bytes, and the numbers they need.

    In order: barriers, two sets of a tile's scales, of its other operands, the
    schedule, and as many stages as fit the rest. The host makes it, so that the
    kernel keeps no register for any of it.

    Parameters:
        shape: How a thread block works.
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
        self.feature_tiles = ceildiv(
            problem.features, Int32(Self.shape.tile_features())
        )
        self.groups = problem.groups

    @inline(.always)
    def scale_bytes(self) -> Int32:
        """Returns the bytes of a set of scales: one for each block of a tile.

        Returns:
            The bytes.
        """
        return Int32(Self.shape.tile_features()) * self.row_blocks

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
        return self.scales(Int32(SETS)) + set * Int32(
            PrefillOperands[Self.shape].BYTES
        )

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
        return min(
            Int32(MAX_STAGES), room // stage_bytes[Self.shape](row_units)
        )

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
            and layout.stages(Int32(Self.shape.row_units()))
            >= Int32(_MIN_STAGES)
        )
