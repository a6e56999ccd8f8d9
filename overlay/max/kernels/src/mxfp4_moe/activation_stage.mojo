# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Stages of BF16 activations in shared memory, in fragment order.

A stage holds `tile_rows` rows by 128 elements along K. Thread `t` of the four
that share a row of a tensor-core fragment owns 32 neighbouring elements of it:
one MXFP4 block of the weights it meets.
It reads them as four units of eight. Units are laid out so that the 32 lanes
of a warp, which read unit `i` of their own rows and blocks together, touch
512 neighbouring bytes; an XOR keeps the copies that fill the stage, where lanes
walk along K instead, free of bank conflicts too.
"""

from std.memory import Pointer

from max.gpu.memory import async_copy
from max.gpu.sync import barrier

from .kernel_argument import TensorPointer
from .problem import MatmulProblem, RowMap

comptime STAGE_DEPTH = 128
"""Elements along K of a stage."""

comptime UNIT_ELEMENTS = 8
"""BF16 elements of a unit: one 16-byte copy, and one word of packed codes."""

comptime _UNITS_PER_ROW = STAGE_DEPTH // UNIT_ELEMENTS


@inline(.always)
def unit_offset(row_octet: Int, unit: Int, row: Int, block: Int) -> Int:
    """Returns where a unit lies in its stage, in BF16 elements.

    Args:
        row_octet: Which eight rows.
        unit: Which of the block's four units.
        row: The row within the eight.
        block: The block along K, 0 to 3.

    Returns:
        The offset from the stage's beginning.
    """
    return (
        (row_octet * 4 + unit) * 32 + ((row * 4 + block) ^ (unit * 2))
    ) * UNIT_ELEMENTS


struct ActivationLoader[RowMapType: RowMap, tile_rows: Int, threads: Int](
    TrivialRegisterPassable
):
    """Fills stages with asynchronous copies, gathering rows on the way.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        tile_rows: Rows of a tile.
        threads: Threads that share the work.
    """

    comptime _COPIES = Self.tile_rows * _UNITS_PER_ROW // Self.threads
    """Units that a thread copies of each stage."""

    var activations: TensorPointer[BFloat16]
    """The activations."""
    var depth: Int
    """Their length, K."""
    var sources: Pointer[Int32, MutUntrackedOrigin, address_space=.SHARED]
    """The activation row of each row of the tile; -1 past its rows. In shared
    memory, for the registers are the accumulators'."""
    var thread: Int
    """This thread."""

    @inline(.always)
    def __init__(
        out self,
        problem: MatmulProblem,
        rows: Self.RowMapType,
        first_row: Int,
        row_count: Int,
        thread: Int,
        sources: Pointer[Int32, MutUntrackedOrigin, address_space=.SHARED],
    ):
        """Looks up the tile's rows, together with all threads of the block.

        Args:
            problem: The operands and their sizes.
            rows: Maps a routed row to its activation row.
            first_row: The tile's first routed row.
            row_count: The tile's rows.
            thread: This thread.
            sources: Shared memory for `tile_rows` rows.
        """
        comptime assert Self.tile_rows * _UNITS_PER_ROW % Self.threads == 0
        comptime assert Self.tile_rows <= Self.threads
        self.activations = problem.activations
        self.depth = Int(problem.depth)
        self.sources = sources
        self.thread = thread
        if thread < Self.tile_rows:
            sources[unsafe_offset=thread] = Int32(
                rows.source_row(first_row + thread)
            ) if thread < row_count else Int32(-1)
        barrier()

    @inline(.always)
    def _row(self, copy: Int) -> Int:
        # Sixteen lanes copy a row side by side.
        return (self.thread + copy * Self.threads) // _UNITS_PER_ROW

    @inline(.always)
    def load(
        self,
        stage: Pointer[BFloat16, MutUntrackedOrigin, address_space=.SHARED],
        depth_start: Int,
    ):
        """Starts this thread's copies of one stage.

        Rows past the tile and elements past K arrive as zeros, since a NaN
        there would meet the zeros of the weights.

        Args:
            stage: The stage to fill.
            depth_start: The first element along K.
        """
        var unit_in_row = self.thread % _UNITS_PER_ROW
        var k = depth_start + unit_in_row * UNIT_ELEMENTS
        comptime for copy in range(Self._COPIES):
            var row = self._row(copy)
            var source = self.sources[unsafe_offset=row]
            var present = source >= 0 and k < self.depth
            var at = Int(source) * self.depth + k if present else 0
            async_copy[16, fill=BFloat16(0)](
                self.activations.unsafe_offset(at).unsafe_address_space_cast[
                    .GLOBAL
                ](),
                stage.unsafe_offset(
                    unit_offset(
                        row // 8, unit_in_row % 4, row % 8, unit_in_row // 4
                    )
                ),
                Int32(16) if present else Int32(0),
            )
