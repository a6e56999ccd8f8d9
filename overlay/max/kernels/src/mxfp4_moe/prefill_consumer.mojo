# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Multiplies the tiles of the prefill matmul.

A consumer is a warpgroup with 64 features of the tile, a panel a warp. It
expands a step's blocks into the registers that `wgmma` takes A from, while its own
`wgmma` of the step before and those of the other consumers run. B are the tile's
rows, in shared memory.
"""

from std.memory import bitcast
from std.sys import inlined_assembly
from std.utils import StaticTuple

from max.gpu import lane_id, warp_id
from max.gpu.compute.mma import WGMMADescriptor, wgmma_wait_group_sync
from max.gpu.host.nvidia.tma import TensorMapSwizzle

from .bulk_copy import SharedPointer
from .epilogue import Epilogue, Results
from .expand_sm90 import expand_panel_word, fragment
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_layout import (
    PANEL_STEP_BYTES,
    ROW_BYTES,
    STEP_BLOCKS,
    TILE_ROWS,
    WEIGHT_BYTES,
    PrefillOperands,
    PrefillLayout,
)
from .prefill_ring import OperandSets, Ring
from .prefill_schedule import PrefillTile
from .prefill_sums import ROW_UNIT, clear_sums, get_sum, multiply_step


comptime _BATCH = 4
"""Eights of rows that are finished before the first is written."""

comptime _Weights = StaticTuple[SIMD[.uint32, 4], 2 * STEP_BLOCKS]
"""A lane's part of A for a step: of 16 elements along K each."""


@inline(.always)
def _pin(results: Results) -> Results:
    # Compilers would move what makes a result behind the condition for writing
    # it, and each pair would wait for the one before.
    return Results(
        inlined_assembly["", Float32, constraints="=f,0", has_side_effect=True](
            results[0]
        ),
        inlined_assembly["", Float32, constraints="=f,0", has_side_effect=True](
            results[1]
        ),
    )


@fieldwise_init
struct _PackedBlock(TrivialRegisterPassable):
    """A lane's part of one block of its panel."""

    var words: SIMD[.uint32, 2]
    """Its two features' codes."""
    var first_scale: UInt8
    """The first feature's scale."""
    var second_scale: UInt8
    """The second's."""


struct _PanelReader(TrivialRegisterPassable):
    """Reads one step of a warp's panel after the other."""

    var weights: SharedPointer[UInt8]
    """The lane's bytes of the panel's first block, in the first stage."""
    var scales: SharedPointer[UInt8]
    """The lane's scales of the panel's next block."""
    var blocks_left: Int32
    """Blocks from the next one on."""

    @inline(.always)
    def __init__(out self, consumer: Consumer):
        """Begins with the first block.

        Args:
            consumer: The lane.
        """
        var warp = Int32(warp_id())
        self.weights = consumer.stages.unsafe_offset(
            Int(warp) * PANEL_STEP_BYTES + Int(lane_id()) * 8
        )
        # The lane's two features are neighbours within its warp's panel.
        self.scales = consumer.shared.unsafe_offset(
            Int(
                consumer.layout.scales(consumer.sets.set)
                + warp * Int32(PANEL_FEATURES) * consumer.layout.row_blocks
                + consumer.first_feature % Int32(PANEL_FEATURES)
            )
        )
        self.blocks_left = consumer.layout.row_blocks

    @inline(.always)
    def read_step(
        mut self, stage: Int32
    ) -> StaticTuple[_PackedBlock, STEP_BLOCKS]:
        """Reads the blocks of the next step.

        Args:
            stage: Where its stage starts.

        Returns:
            The lane's parts.
        """
        var packed = StaticTuple[_PackedBlock, STEP_BLOCKS]()
        comptime for block in range(STEP_BLOCKS):
            var words = self.weights.unsafe_offset(Int(stage)).unsafe_load[
                width=8, alignment=8
            ](block * PANEL_BLOCK_BYTES)
            packed[block] = _PackedBlock(
                bitcast[.uint32, 2](words),
                self.scales[],
                self.scales[unsafe_offset=1],
            )
            # A block past K has codes of zero, and takes any scale that is a
            # number's: that of the last block is as NaN as its sum.
            self.blocks_left -= 1
            if self.blocks_left > 0:
                self.scales = self.scales.unsafe_offset(PANEL_FEATURES)
        return packed


@inline(.always)
def _expand(
    packed: StaticTuple[_PackedBlock, STEP_BLOCKS], large: Bool
) -> _Weights:
    # A branch here and not two loops: ptxas sets registers aside for every
    # product in a kernel.
    if large:
        return _expand_blocks[two_steps=True](packed)
    return _expand_blocks[two_steps=False](packed)


@inline(.always)
def _expand_blocks[
    *, two_steps: Bool
](packed: StaticTuple[_PackedBlock, STEP_BLOCKS]) -> _Weights:
    var weights = _Weights()
    comptime for block in range(STEP_BLOCKS):
        var first = expand_panel_word[two_steps](
            packed[block].words[0], packed[block].first_scale
        )
        var second = expand_panel_word[two_steps](
            packed[block].words[1], packed[block].second_scale
        )
        comptime for half in range(2):
            var pairs = bitcast[.uint32, 4](fragment[half](first, second))
            comptime for i in range(4):
                # Not later than here, where products run.
                pairs[i] = inlined_assembly[
                    "", UInt32, constraints="=r,0", has_side_effect=True
                ](pairs[i])
            weights[2 * block + half] = pairs
    return weights


@inline(.always)
def _keep(weights: _Weights):
    # The compiler does not know that products in flight read these registers,
    # and would have the next weights in them.
    comptime for i in range(2 * STEP_BLOCKS):
        inlined_assembly[
            "", NoneType, constraints="r,r,r,r", has_side_effect=True
        ](weights[i][0], weights[i][1], weights[i][2], weights[i][3])


struct Consumer(TrivialRegisterPassable):
    """One lane of a multiplying warpgroup."""

    var layout: PrefillLayout
    """Where things lie in shared memory."""
    var shared: SharedPointer[UInt8]
    """The block's shared memory."""
    var first_feature: Int32
    """The first of the lane's two features, within a tile. They are
    neighbours, which the epilogue wants as a pair; nothing else depends on
    the order."""
    var stages: SharedPointer[UInt8]
    """Where the first stage starts."""
    var first_rows: Int64
    """What `wgmma` takes as the first stage's rows."""
    var ring: Ring
    """The stages."""
    var sets: OperandSets
    """The sets of operands."""

    @inline(.always)
    def __init__(
        out self,
        layout: PrefillLayout,
        shared: SharedPointer[UInt8],
        ring: Ring,
        sets: OperandSets,
    ):
        """Begins with the first tile.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            ring: The stages.
            sets: The sets of operands.
        """
        self.layout = layout
        self.shared = shared
        self.first_feature = Int32(warp_id()) * 16 + Int32(lane_id()) // 4 * 2
        self.stages = shared.unsafe_offset(Int(layout.first_stage()))
        self.first_rows = (
            WGMMADescriptor[.bfloat16]
            .create[8 * ROW_BYTES // 16, 1, TensorMapSwizzle.SWIZZLE_128B](
                self.stages.unsafe_offset(WEIGHT_BYTES).unsafe_bitcast[
                    BFloat16
                ]()
            )
            .desc
        )
        self.ring = ring
        self.sets = sets

    @inline(.always)
    def multiply(mut self, tile: PrefillTile):
        """Computes the sums of the warpgroup's part of a tile.

        Args:
            tile: The tile.
        """
        self.sets.wait_ready()
        self.ring.wait_full()
        var large = self._operands().any_large_scale()
        clear_sums[TILE_ROWS]()
        var reader = _PanelReader(self)
        # Products read one set of weights' registers while the other is filled.
        var weights = _expand(reader.read_step(self.ring.offset), large)
        var steps_left = self.layout.steps
        while True:
            self._start_products(tile, weights)
            steps_left -= 1
            if steps_left == 0:
                break
            self.ring.wait_full()
            var others = _expand(reader.read_step(self.ring.offset), large)
            self._end_products(weights)
            self._start_products(tile, others)
            steps_left -= 1
            if steps_left == 0:
                break
            self.ring.wait_full()
            weights = _expand(reader.read_step(self.ring.offset), large)
            self._end_products(others)
        wgmma_wait_group_sync()
        self.ring.release_last()

    @inline(.always)
    def _start_products(mut self, tile: PrefillTile, weights: _Weights):
        multiply_step[1, TILE_ROWS // ROW_UNIT](
            tile.row_units,
            weights,
            WGMMADescriptor[.bfloat16](
                self.first_rows + Int64(self.ring.offset >> 4)
            ),
        )
        self.ring.advance()

    @inline(.always)
    def _end_products(self, weights: _Weights):
        wgmma_wait_group_sync()
        _keep(weights)
        self.ring.release_last()

    @inline(.always)
    def store[
        EpilogueType: Epilogue
    ](mut self, tile: PrefillTile, features: Int32, epilogue: EpilogueType,):
        """Hands the sums of the warpgroup's part of a tile to the epilogue, and
        goes on to the next tile.

        Parameters:
            EpilogueType: What happens to each pair of sums.

        Args:
            tile: The tile.
            features: Output features, N.
            epilogue: Receives the sums.
        """
        if tile.first_feature + self.first_feature < features:
            self._store(tile, epilogue)
        self.sets.release()
        self.sets.advance()

    @inline(.always)
    def _store[
        EpilogueType: Epilogue
    ](self, tile: PrefillTile, epilogue: EpilogueType):
        var feature = tile.first_feature + self.first_feature
        var operands = self._operands()
        var of_features = operands.of_features(self.first_feature)
        var quad_row = Int32(lane_id()) % 4 * 2
        var first_row = tile.first_row + quad_row
        var rows_left = tile.rows - quad_row
        comptime for batch in range(0, TILE_ROWS // 8, _BATCH):
            if Int32(batch * 8) >= tile.rows:
                return
            comptime octets = min(_BATCH, TILE_ROWS // 8 - batch)
            var results = StaticTuple[Results, 2 * octets]()
            comptime for i in range(2 * octets):
                comptime octet = batch + i // 2
                results[i] = _pin(
                    epilogue.finish(
                        operands.of_row(quad_row + Int32(octet * 8 + i % 2)),
                        of_features,
                        get_sum[octet, i % 2](),
                        get_sum[octet, 2 + i % 2](),
                    )
                )
            comptime for i in range(2 * octets):
                comptime row = Int32((batch + i // 2) * 8 + i % 2)
                if row < rows_left:
                    epilogue.write(
                        operands.of_row(quad_row + row),
                        Int(first_row + row),
                        Int(feature),
                        results[i],
                    )

    @inline(.always)
    def _operands(self) -> PrefillOperands:
        return PrefillOperands(
            self.shared.unsafe_offset(Int(self.layout.operands(self.sets.set)))
        )
