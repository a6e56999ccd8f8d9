# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A run of row tiles' BF16 activations over all of K, in shared memory.

The copy engine brings each row as it is. Rows lie 16 bytes further apart than
they are long, so that `ldmatrix`, which reads 16 bytes of eight rows at once,
finds them in different banks. What it hands to a lane, for each MXFP4 block along
K and each eight rows, are the four pairs of neighbouring elements that meet the
four pairs of the lane's words of weights.

Where a row tile has fewer than eight rows left, zeros stand for the others. No
sum needs them, but power limits these kernels, and a tensor core that multiplies
with zeros takes less of it. They are read from the banks where the rows would lie,
so that they meet no row there either.
"""

from std.sys import size_of

from layout.tma_async import SharedMemBarrier
from max.gpu import lane_id, thread_idx, warp_id
from max.gpu.compute.mma import ld_matrix

from .bulk_copy import SharedPointer, bulk_copy
from .mxfp4 import BLOCK_ELEMENTS
from .problem import MatmulProblem, RowMap
from .stream_layout import BANKS_BYTES, StreamLayout, StreamShape, at_block
from .stream_schedule import TileRun
from .tile_schedule import RowTile

comptime _BLOCK_BYTES = BLOCK_ELEMENTS * size_of[BFloat16]()
# Bytes of a row's activations of one block.

comptime _UNIT_BYTES = 16
# What `ldmatrix` reads of a row: eight elements.


struct ActivationRows[shape: StreamShape](TrivialRegisterPassable):
    """The rows of one run after the other.

    Parameters:
        shape: How a thread block works.
    """

    var rows: SharedPointer[UInt8]
    """Where they lie."""
    var no_row: SharedPointer[UInt8]
    """Where zeros lie that stand for other rows."""
    var first_row: Int32
    """The run's first routed row."""
    var barrier: SharedPointer[SharedMemBarrier]
    """What counts the bytes that have come."""
    var row_bytes: Int32
    """From a row to the next."""
    var phase: UInt32
    """The parity that the barrier waits for."""

    @inline(.always)
    def __init__(
        out self,
        layout: StreamLayout[Self.shape],
        shared: SharedPointer[UInt8],
    ):
        """Begins with no rows, together with all threads of the block.

        The threads meet before the first rows are read, and the barrier is ready
        before their copies start.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
        """
        self.rows = shared.unsafe_offset(layout.activations())
        self.no_row = shared.unsafe_offset(layout.no_row())
        self.first_row = 0
        self.barrier = shared.unsafe_offset(
            layout.activation_barrier()
        ).unsafe_bitcast[SharedMemBarrier]()
        self.row_bytes = Int32(layout.row_bytes())
        self.phase = 0
        var at = Int(thread_idx.x) * _UNIT_BYTES
        if at < Self.shape.no_row_bytes():
            self.no_row.unsafe_store[alignment=_UNIT_BYTES](
                at, SIMD[.uint8, _UNIT_BYTES](0)
            )

    @inline(.always)
    def start[
        RowMapType: RowMap
    ](mut self, problem: MatmulProblem, rows: RowMapType, run: TileRun):
        """Starts copying rows, if there are any, with all threads of the block, none
        of which reads those before any more.

        Parameters:
            RowMapType: Finds the activation row of a routed row.

        Args:
            problem: The operands and their sizes.
            rows: Maps a routed row to its activation row.
            run: The rows.
        """
        comptime assert (
            Self.shape.threads() * _UNIT_BYTES >= Self.shape.no_row_bytes()
        )
        self.first_row = run.first_row
        if lane_id() != 0 or run.rows == 0:
            return
        var bytes = problem.depth * Int32(size_of[BFloat16]())
        # Until this has come, no bytes complete the barrier's phase.
        if warp_id() == 0:
            self.barrier[].expect_bytes(bytes * run.rows)
        # A row a warp, since copies of one warp start one after the other.
        for row in range(Int32(warp_id()), run.rows, Int32(Self.shape.warps)):
            bulk_copy(
                self.rows.unsafe_offset(Int(row * self.row_bytes)),
                problem.activations.unsafe_offset(
                    rows.source_row(Int(run.first_row + row))
                    * Int(problem.depth)
                ).unsafe_bitcast[UInt8](),
                bytes,
                self.barrier,
            )

    @inline(.always)
    def wait(mut self):
        """Waits until the rows have come."""
        self.barrier[].wait(self.phase)
        self.phase ^= 1

    @inline(.always)
    def lane_rows(self, row_tile: RowTile, octet: Int) -> LaneRows:
        """Finds what this lane reads for `ldmatrix`.

        Args:
            row_tile: A row tile of the run.
            octet: Which eight of its rows.

        Returns:
            Where it lies.
        """
        var lane = Int32(lane_id())
        var row = lane % 8 + Int32(octet * 8)
        var start = self.rows.unsafe_offset(
            Int((row_tile.first - self.first_row + row) * self.row_bytes)
        )
        var step = Int32(_BLOCK_BYTES)
        if row >= row_tile.count:
            var place = UInt32(Int(start)) - UInt32(Int(self.no_row))
            start = self.no_row.unsafe_offset(Int(place % UInt32(BANKS_BYTES)))
            step = 0
        return LaneRows(
            start.unsafe_offset(Int(lane // 8 * Int32(_UNIT_BYTES))), step
        )


@fieldwise_init
struct LaneRows(TrivialRegisterPassable):
    """What a lane reads of eight rows' activations, block after block."""

    var start: SharedPointer[UInt8]
    """Where that of the first block lies which was not passed."""
    var step: Int32
    """Bytes that a passed block counts: none for zeros."""

    @inline(.always)
    def load[known: Int](self, more: Int32) -> SIMD[.bfloat16, 8]:
        """Reads eight rows' activations of one block, with all lanes of a warp.

        Parameters:
            known: The block, from the first that was not passed.

        Args:
            more: Blocks to add to that.

        Returns:
            This lane's four pairs of neighbouring elements of one row.
        """
        return ld_matrix[8](
            at_block[_BLOCK_BYTES, known](self.start, more).unsafe_bitcast[
                BFloat16
            ]()
        )

    @inline(.always)
    def advance(mut self, blocks: Int32):
        """Passes blocks.

        Args:
            blocks: How many.
        """
        self.start = self.start.unsafe_offset(Int(blocks * self.step))
