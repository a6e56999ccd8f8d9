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
from .epilogue import Epilogue, Operands
from .expand_sm90 import expand_panel_words, fragment
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_layout import (
    PANEL_STEP_BYTES,
    ROW_BYTES,
    STEP_BLOCKS,
    PrefillLayout,
    PrefillOperands,
    PrefillShape,
)
from .prefill_ring import OperandSets, Ring
from .prefill_schedule import PrefillTile
from .prefill_sums import get_sum, multiply_step, start_sums
from .subnormals import round_to_bf16


comptime _BATCH = 4
"""Eights of rows that are finished before the first is written."""

comptime _Weights = StaticTuple[SIMD[.uint32, 4], 2 * STEP_BLOCKS]
"""A lane's part of A for a step: of 16 elements along K each."""


comptime _BEGUN = Operands(-0.0)
"""What `finish` adds to sums that began with their features' operands: nothing,
not even an instruction."""


@inline(.always)
def _pair(first: Float32, second: Float32) -> UInt32:
    # Compilers would move what makes a pair behind the condition for writing it,
    # and each pair would wait for the one before.
    return inlined_assembly[
        "", UInt32, constraints="=r,0", has_side_effect=True
    ](bitcast[.uint32, 1](round_to_bf16(SIMD[.float32, 2](first, second))))


@inline(.always)
def _transpose(pair: UInt32) -> UInt32:
    # Of eight times eight results, lane `i` has row `i // 4`, columns
    # `2 * (i % 4)` and the next, before and after.
    return inlined_assembly[
        "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;",
        UInt32,
        constraints="=r,r",
        has_side_effect=True,
    ](pair)


@fieldwise_init
struct _PackedBlock(TrivialRegisterPassable):
    """A lane's part of one block of its panel."""

    var words: SIMD[.uint32, 2]
    """Its two features' codes."""
    var scales: UInt16
    """Their scales, the first feature's in the low byte."""


struct _PanelReader(TrivialRegisterPassable):
    """Reads one step of a warp's panel after the other."""

    var weights: SharedPointer[UInt8]
    """The lane's bytes of the panel's first block, in the first stage."""
    var scales: SharedPointer[UInt8]
    """The lane's scales of the panel's next block."""
    var blocks_left: Int32
    """Blocks from the next one on."""

    @inline(.always)
    def __init__(out self, consumer: Consumer[...]):
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
                self.scales.unsafe_bitcast[UInt16]()[],
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
        var both = expand_panel_words[two_steps](
            packed[block].words, packed[block].scales
        )
        comptime for half in range(2):
            var pairs = bitcast[.uint32, 4](fragment[half](both[0], both[1]))
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


struct Consumer[shape: PrefillShape](TrivialRegisterPassable):
    """One lane of a multiplying warpgroup.

    Parameters:
        shape: How the block works.
    """

    var layout: PrefillLayout[Self.shape]
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
        layout: PrefillLayout[Self.shape],
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
                self.stages.unsafe_offset(
                    Self.shape.weight_bytes()
                ).unsafe_bitcast[BFloat16]()
            )
            .desc
        )
        self.ring = ring
        self.sets = sets

    @inline(.always)
    def multiply[EpilogueType: Epilogue](mut self) -> PrefillTile:
        """Computes the sums of the warpgroup's part of the next tile, from its
        features' operands on.

        Parameters:
            EpilogueType: What happens to each pair of sums.

        Returns:
            The tile.
        """
        self.sets.wait_ready()
        var operands = self._operands()
        var tile = operands.tile()
        var large = operands.any_large_scale()
        var of_features = Operands(0)
        comptime if EpilogueType.READS_FEATURES:
            of_features = operands.of_features(self.first_feature)
        start_sums[Self.shape.tile_rows](of_features)
        self.ring.wait_full()
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
        return tile

    @inline(.always)
    def _start_products(mut self, tile: PrefillTile, weights: _Weights):
        multiply_step[1, Self.shape.row_units()](
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
        # Where lanes exchange, ptxas must not think that some have no features, or
        # it takes no branch of the kernel for one that lanes take together.
        var exists = tile.first_feature + self.first_feature < features
        comptime all_octets = Self.shape.tile_rows // 8
        comptime for batch in range(0, all_octets, _BATCH):
            comptime octets = min(_BATCH, all_octets - batch)
            if Int32(batch * 8) < tile.rows:
                comptime if EpilogueType.JOINS_FEATURES:
                    self._store_joined[batch, octets](tile, exists, epilogue)
                else:
                    self._store_pairs[batch, octets](tile, exists, epilogue)
        self.sets.release()
        self.sets.advance()

    @inline(.always)
    def _store_pairs[
        EpilogueType: Epilogue, //, first: Int, octets: Int
    ](self, tile: PrefillTile, exists: Bool, epilogue: EpilogueType):
        # A lane has two rows of each eight, and writes two features of each.
        var feature = tile.first_feature + self.first_feature
        var quad_row = Int32(lane_id()) % 4 * 2
        var of_rows = StaticTuple[Operands, 2 * octets](fill=Operands(0))
        comptime if EpilogueType.READS_ROWS:
            var operands = self._operands()
            comptime for i in range(octets):
                var both = operands.of_two_rows(
                    quad_row + Int32((first + i) * 8)
                )
                of_rows[2 * i] = Operands(both[0], both[1])
                of_rows[2 * i + 1] = Operands(both[2], both[3])
        var pairs = StaticTuple[UInt32, 2 * octets]()
        comptime for i in range(2 * octets):
            comptime octet = first + i // 2
            var results = epilogue.finish(
                of_rows[i],
                _BEGUN,
                get_sum[octet, i % 2](),
                get_sum[octet, 2 + i % 2](),
            )
            pairs[i] = _pair(results[0], results[1])
        var rows_left = tile.rows - quad_row if exists else Int32(0)
        comptime for i in range(2 * octets):
            comptime row = Int32((first + i // 2) * 8 + i % 2)
            if row < rows_left:
                epilogue.write_pair(
                    of_rows[i],
                    tile.first_row + quad_row + row,
                    feature,
                    pairs[i],
                )

    @inline(.always)
    def _store_joined[
        EpilogueType: Epilogue, //, first: Int, octets: Int
    ](self, tile: PrefillTile, exists: Bool, epilogue: EpilogueType):
        # A lane has two rows of each eight, and two features become one result. So
        # lanes exchange: each writes two results of one row.
        comptime assert not EpilogueType.READS_ROWS
        var pairs = StaticTuple[UInt32, octets]()
        comptime for i in range(octets):
            comptime octet = first + i
            pairs[i] = _transpose(
                _pair(
                    epilogue.finish(
                        0, _BEGUN, get_sum[octet, 0](), get_sum[octet, 2]()
                    )[0],
                    epilogue.finish(
                        0, _BEGUN, get_sum[octet, 1](), get_sum[octet, 3]()
                    )[0],
                )
            )
        var row_in_octet = Int32(lane_id()) // 4
        var feature = (
            tile.first_feature
            + Int32(warp_id()) * 16
            + Int32(lane_id()) % 4 * 4
        )
        var rows_left = tile.rows - row_in_octet if exists else Int32(0)
        comptime for i in range(octets):
            comptime row = Int32((first + i) * 8)
            if row < rows_left:
                epilogue.write_pair(
                    0,
                    tile.first_row + row_in_octet + row,
                    feature,
                    pairs[i],
                )

    @inline(.always)
    def _operands(self) -> PrefillOperands[Self.shape]:
        return PrefillOperands[Self.shape](
            self.shared.unsafe_offset(Int(self.layout.operands(self.sets.set)))
        )
