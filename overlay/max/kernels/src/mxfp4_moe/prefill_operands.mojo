# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What consumers need of a prefill tile besides its steps, in shared memory.

Consumers have no time to wait for memory, nor to look for their tile: three warps
find it, read what the epilogue meets and look through the scales while the tile
before is multiplied.
"""

from std.math import align_up
from std.memory import bitcast
from std.sys import size_of

from max.gpu import WARP_SIZE, lane_id, thread_idx
from max.gpu.globals import WARPGROUP_SIZE
from max.gpu.primitives import warp

from .bulk_copy import SharedPointer
from .epilogue import Epilogue, Operands
from .prefill_schedule import PrefillTile


comptime _WARPS = WARPGROUP_SIZE // WARP_SIZE - 1

comptime OPERAND_THREADS = _WARPS * WARP_SIZE
"""Threads that prepare operands: the last ones of the block."""


@inline(.always)
def _thread() -> Int32:
    return Int32(thread_idx.x) % Int32(WARPGROUP_SIZE) - Int32(WARP_SIZE)


@fieldwise_init
struct TileOperands[tile_rows: Int, tile_features: Int](
    TrivialRegisterPassable
):
    """The operands of one tile.

    In order: for each preparing warp whether it saw a scale byte of 128 or more,
    the tile, the operands of rows, and those of pairs of features.

    Parameters:
        tile_rows: Most rows of a tile.
        tile_features: Features of a tile.
    """

    comptime _FLAG_BYTES = 16
    comptime _TILE_BYTES = align_up(size_of[PrefillTile](), 16)
    comptime _ROW_BYTES = Self.tile_rows * size_of[Operands]()
    comptime _FEATURE_BYTES = Self.tile_features // 2 * size_of[Operands]()

    comptime _ROWS_AT = Self._FLAG_BYTES + Self._TILE_BYTES
    comptime _FEATURES_AT = Self._ROWS_AT + Self._ROW_BYTES

    comptime BYTES = Self._FEATURES_AT + Self._FEATURE_BYTES
    """Shared memory of one tile's operands."""

    var start: SharedPointer[UInt8]
    """Where they start, a multiple of 16 bytes."""

    @inline(.always)
    def _tile(self) -> SharedPointer[PrefillTile]:
        return self.start.unsafe_offset(Self._FLAG_BYTES).unsafe_bitcast[
            PrefillTile
        ]()

    @inline(.always)
    def _of_rows(self) -> SharedPointer[Float32]:
        return self.start.unsafe_offset(Self._ROWS_AT).unsafe_bitcast[Float32]()

    @inline(.always)
    def _of_features(self) -> SharedPointer[Float32]:
        return self.start.unsafe_offset(Self._FEATURES_AT).unsafe_bitcast[
            Float32
        ]()

    @inline(.always)
    def fill[
        EpilogueType: Epilogue
    ](self, tile: PrefillTile, features: Int32, epilogue: EpilogueType):
        """Stores the tile and what the epilogue reads, with all preparing threads.

        Rows and features that the tile lacks get those of the last.

        Parameters:
            EpilogueType: What happens to each pair of sums.

        Args:
            tile: The tile.
            features: Output features, N.
            epilogue: Reads the operands.
        """
        var thread = _thread()
        if thread == 0:
            self._tile()[] = tile
        comptime if EpilogueType.READS_FEATURES:
            for pair in range(
                thread, Int32(Self.tile_features // 2), Int32(OPERAND_THREADS)
            ):
                var feature = min(tile.first_feature + 2 * pair, features - 2)
                self._of_features().unsafe_store[alignment=8](
                    2 * Int(pair),
                    epilogue.load_features(Int(tile.expert), Int(feature)),
                )
        comptime if EpilogueType.READS_ROWS:
            for row in range(
                thread, Int32(Self.tile_rows), Int32(OPERAND_THREADS)
            ):
                self._of_rows().unsafe_store[alignment=8](
                    2 * Int(row),
                    epilogue.load_row(
                        Int(tile.first_row + min(row, tile.rows - 1))
                    ),
                )

    @inline(.always)
    def note_large_scales(self, scales: SharedPointer[UInt8], bytes: Int32):
        """Notes whether any scale byte is 128 or more, with all preparing threads.

        Args:
            scales: The tile's scales.
            bytes: How many, a multiple of 16.
        """
        var large = UInt32(0)
        for at in range(_thread() * 16, bytes, Int32(OPERAND_THREADS * 16)):
            var words = bitcast[.uint32, 4](
                scales.unsafe_load[width=16, alignment=16](Int(at))
            )
            large |= words.reduce_or()
        # 128 could do with one step, but is rare: to tell it from more takes masks.
        var lanes = warp.vote[.uint32](large & 0x8080_8080 != 0)
        if lane_id() == 0:
            self.start.unsafe_bitcast[UInt32]()[
                unsafe_offset=Int(_thread()) // WARP_SIZE
            ] = lanes

    @inline(.always)
    def any_large_scale(self) -> Bool:
        """Returns whether any scale byte of the tile is 128 or more, so
        that weights take two steps.

        Returns:
            True if so.
        """
        var flags = self.start.unsafe_bitcast[UInt32]().unsafe_load[
            width=4, alignment=16
        ]()
        return flags[0] | flags[1] | flags[2] != 0

    @inline(.always)
    def tile(self) -> PrefillTile:
        """Returns the tile.

        Returns:
            The tile.
        """
        return self._tile()[]

    @inline(.always)
    def of_two_rows(self, row: Int32) -> SIMD[.float32, 4]:
        """Returns the operands of two neighbouring rows.

        Args:
            row: The first of them, from the tile's first: an even number.

        Returns:
            What the epilogue's `load_row` returned for both.
        """
        return self._of_rows().unsafe_load[width=4, alignment=16](2 * Int(row))

    @inline(.always)
    def of_features(self, feature: Int32) -> Operands:
        """Returns the operands of two neighbouring features.

        Args:
            feature: The first of them, from the tile's first.

        Returns:
            What the epilogue's `load_features` returned.
        """
        return self._of_features().unsafe_load[width=2, alignment=8](
            Int(feature)
        )
