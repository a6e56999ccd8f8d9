# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Multiplies the tiles of the prefill matmul.

A consumer is a warpgroup with 64 features of the tile, a panel a warp. It
expands one block along K of each at a time into the registers that `wgmma`
takes A from, while the `wgmma` of the block before it runs. B are the tile's
rows, in shared memory.
"""

from std.memory import bitcast
from std.sys import inlined_assembly

from max.gpu import lane_id, warp_id
from max.gpu.compute.mma import (
    WGMMADescriptor,
    wgmma_async,
    wgmma_commit_group_sync,
    wgmma_fence_aligned,
    wgmma_wait_group_sync,
)
from max.gpu.host.nvidia.tma import TensorMapSwizzle

from .bulk_copy import SharedPointer
from .epilogue import Epilogue
from .expand_sm90 import expand_panel_word, fragment
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .prefill_layout import (
    ROW_BYTES,
    STAGE_BYTES,
    STEP_BLOCKS,
    PANEL_STEP_BYTES,
    WEIGHTS,
    PrefillOperands,
    PrefillLayout,
)
from .prefill_ring import DrainingRing
from .prefill_schedule import PrefillTile


struct Sums[rows: Int](TrivialRegisterPassable):
    """A lane's sums of 64 features and some rows.

    A `wgmma` has 8, 16, 32, 64, 128 or 256 rows here, so that most tiles take
    several.

    Parameters:
        rows: The rows, a multiple of 16 up to 256.
    """

    var of_256: SIMD[.float32, 128]
    """Sums of 256 rows, if there are as many."""
    var of_128: SIMD[.float32, 64]
    """Sums of the first 128 rows otherwise, if there are as many."""
    var of_64: SIMD[.float32, 32]
    """Sums of the 64 rows then, likewise."""
    var of_32: SIMD[.float32, 16]
    """Of the next 32."""
    var of_16: SIMD[.float32, 8]
    """Of the next 16."""

    @inline(.always)
    def __init__(out self):
        """Makes sums of nothing."""
        self.of_256 = 0
        self.of_128 = 0
        self.of_64 = 0
        self.of_32 = 0
        self.of_16 = 0

    @inline(.always)
    def multiply(
        mut self, a: SIMD[.bfloat16, 8], b: WGMMADescriptor[.bfloat16]
    ):
        """Starts adding the products of 16 elements along K.

        Args:
            a: The lane's weights.
            b: The rows.
        """
        comptime if Self.rows & 256:
            self.of_256 = wgmma_async[
                64, 256, 16, a_type=.bfloat16, b_type=.bfloat16
            ](a, b, self.of_256)
        comptime if Self.rows & 128:
            self.of_128 = wgmma_async[
                64, 128, 16, a_type=.bfloat16, b_type=.bfloat16
            ](a, b, self.of_128)
        comptime if Self.rows & 64:
            self.of_64 = wgmma_async[
                64, 64, 16, a_type=.bfloat16, b_type=.bfloat16
            ](a, b + (Self.rows & 128) * ROW_BYTES, self.of_64)
        comptime if Self.rows & 32:
            self.of_32 = wgmma_async[
                64, 32, 16, a_type=.bfloat16, b_type=.bfloat16
            ](a, b + (Self.rows & 192) * ROW_BYTES, self.of_32)
        comptime if Self.rows & 16:
            self.of_16 = wgmma_async[
                64, 16, 16, a_type=.bfloat16, b_type=.bfloat16
            ](a, b + (Self.rows & 224) * ROW_BYTES, self.of_16)

    @inline(.always)
    def settle(mut self):
        """Keeps reads of the sums behind the wait before this call."""
        comptime if Self.rows & 256:
            _settle(self.of_256)
        comptime if Self.rows & 128:
            _settle(self.of_128)
        comptime if Self.rows & 64:
            _settle(self.of_64)
        comptime if Self.rows & 32:
            _settle(self.of_32)
        comptime if Self.rows & 16:
            _settle(self.of_16)

    @inline(.always)
    def get[octet: Int, i: Int](self) -> Float32:
        """Returns one of the four sums that a lane has of eight rows.

        Parameters:
            octet: Which eight rows.
            i: 0 and 1 for neighbouring rows, 2 and 3 for the same of the
                features eight below.

        Returns:
            The sum.
        """
        comptime row = octet * 8
        comptime if row < Self.rows & 256:
            return self.of_256[octet * 4 + i]
        comptime if row < Self.rows & 128:
            return self.of_128[octet * 4 + i]
        comptime if row < Self.rows & 192:
            return self.of_64[(row - (Self.rows & 128)) // 2 + i]
        comptime if row < Self.rows & 224:
            return self.of_32[(row - (Self.rows & 192)) // 2 + i]
        return self.of_16[(row - (Self.rows & 224)) // 2 + i]


@inline(.always)
def _keep_apart():
    # Compilers would merge the stores of two variants with as many rows, and
    # ptxas then runs one `wgmma` at a time (C7511).
    inlined_assembly[
        "// apart",
        NoneType,
        constraints="~{memory}",
        has_side_effect=True,
    ]()


@inline(.always)
def _settle(mut sums: SIMD[.float32, _]):
    comptime for i in range(Int(sums.length)):
        sums[i] = inlined_assembly["", Float32, constraints="=f,0"](sums[i])


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
    """Reads one block of a warp's panel after the other."""

    var weights: SharedPointer[UInt8]
    """The lane's bytes of the panel's first block, in the first stage."""
    var scales: SharedPointer[UInt8]
    """The lane's scales of the panel's next block."""
    var blocks_left: Int32
    """Blocks from the next one on."""

    @inline(.always)
    def __init__(out self, consumer: Consumer, set: Int32):
        """Begins with the first block.

        Args:
            consumer: The lane.
            set: The set of the tile's scales.
        """
        var warp = Int32(warp_id())
        self.weights = consumer.shared.unsafe_offset(
            WEIGHTS + Int(warp) * PANEL_STEP_BYTES + Int(lane_id()) * 8
        )
        # The lane's two features are neighbours within its warp's panel.
        self.scales = consumer.shared.unsafe_offset(
            Int(
                consumer.layout.scales(set)
                + warp * Int32(PANEL_FEATURES) * consumer.layout.row_blocks
                + consumer.first_feature % Int32(PANEL_FEATURES)
            )
        )
        self.blocks_left = consumer.layout.row_blocks

    @inline(.always)
    def read[block: Int](mut self, stage: Int) -> _PackedBlock:
        """Reads the next block.

        Parameters:
            block: Which one of its step it is.

        Args:
            stage: Where its stage starts.

        Returns:
            The lane's part.
        """
        var words = bitcast[.uint32, 2](
            self.weights.unsafe_offset(stage).unsafe_load[width=8, alignment=8](
                block * PANEL_BLOCK_BYTES
            )
        )
        var packed = _PackedBlock(
            words, self.scales[], self.scales[unsafe_offset=1]
        )
        # A block past K has codes of zero, and takes any scale that is a
        # number's: that of the last block is as NaN as its sum.
        self.blocks_left -= 1
        if self.blocks_left > 0:
            self.scales = self.scales.unsafe_offset(PANEL_FEATURES)
        return packed


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
    var ring: DrainingRing
    """The stages."""

    @inline(.always)
    def __init__(
        out self,
        layout: PrefillLayout,
        shared: SharedPointer[UInt8],
        ring: DrainingRing,
    ):
        """Begins with the first tile.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            ring: The stages.
        """
        self.layout = layout
        self.shared = shared
        self.first_feature = Int32(warp_id()) * 16 + Int32(lane_id()) // 4 * 2
        self.ring = ring

    @inline(.always)
    def multiply_and_store[
        EpilogueType: Epilogue, //, rows: Int, *, two_steps: Bool
    ](
        mut self,
        tile: PrefillTile,
        set: Int32,
        features: Int32,
        epilogue: EpilogueType,
    ):
        """Computes the warpgroup's part of a tile.

        Parameters:
            EpilogueType: What happens to each pair of sums.
            rows: Rows to compute.
            two_steps: Whether scale bytes above 128 are to be expected.

        Args:
            tile: The tile.
            set: The set of its scales and other operands.
            features: Output features, N.
            epilogue: Receives the sums.
        """
        var sums = Sums[rows]()
        var weights = _PanelReader(self, set)
        var steps = self.layout.steps
        var first_stage = WGMMADescriptor[.bfloat16].create[
            8 * ROW_BYTES // 16, 1, TensorMapSwizzle.SWIZZLE_128B
        ](self.shared.unsafe_bitcast[BFloat16]())
        var packed = weights.read[0](self.ring.offset())
        for step in range(steps):
            var rows_start = WGMMADescriptor[.bfloat16](
                first_stage.desc
                + Int64(self.ring.place.stage * Int32(STAGE_BYTES // 16))
            )
            comptime for block in range(STEP_BLOCKS):
                var first = expand_panel_word[two_steps](
                    packed.words[0], packed.first_scale
                )
                var second = expand_panel_word[two_steps](
                    packed.words[1], packed.second_scale
                )
                # The next block is read before this one's products begin, so
                # that it is there when they have.
                comptime if block + 1 < STEP_BLOCKS:
                    packed = weights.read[block + 1](self.ring.offset())
                else:
                    self.ring.advance()
                    if step + 1 < steps:
                        self.ring.wait_full()
                        packed = weights.read[0](self.ring.offset())
                wgmma_fence_aligned()
                comptime for half in range(2):
                    sums.multiply(
                        fragment[half](first, second),
                        rows_start + (block * 64 + half * 32),
                    )
                wgmma_commit_group_sync()
                # The products before these are done, and with them their
                # registers and, at a step's first block, the stage before.
                wgmma_wait_group_sync[1]()
                comptime if block == 0:
                    if step > 0:
                        self.ring.release_last()
        wgmma_wait_group_sync()
        sums.settle()
        self.ring.release_last()

        var feature = tile.first_feature + self.first_feature
        if feature < features:
            var operands = PrefillOperands(
                self.shared.unsafe_offset(Int(self.layout.operands(set)))
            )
            var of_features = operands.of_features(self.first_feature)
            var quad_row = Int32(lane_id()) % 4 * 2
            var first_row = tile.first_row + quad_row
            var rows_left = tile.rows - quad_row
            comptime for octet in range(rows // 8):
                comptime for i in range(2):
                    comptime row = Int32(octet * 8 + i)
                    if row < rows_left:
                        epilogue.finish(
                            operands.of_row(quad_row + row),
                            of_features,
                            Int(first_row + row),
                            Int(feature),
                            sums.get[octet, i](),
                            sums.get[octet, 2 + i](),
                        )
                        comptime if two_steps:
                            _keep_apart()
