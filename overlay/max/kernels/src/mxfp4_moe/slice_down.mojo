# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A warp's panels of `down`: the block of each that meets a slice.

Such blocks lie a whole panel apart: a box of a matrix that has a panel a row. What
the warp has multiplied grows in registers over the slices of a segment, and is then
a part of the sum over K, which `slice_sums.mojo` adds to those of the other blocks.
"""

from std.math import ceildiv
from std.memory import Pointer
from std.utils import StaticTuple

from layout.tma_async import SharedMemBarrier
from max.gpu import lane_id, warp_id
from max.gpu.host import DeviceContext
from max.gpu.host.nvidia.tma import TensorMapSwizzle, TMADescriptor
from max.gpu.primitives.cluster import elect_one_sync
from max.gpu.sync import syncwarp

from .bulk_copy import SharedPointer
from .kernel_argument import TensorPointer
from .layer_problem import LayerProblem
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES, WORD_BYTES
from .raw_products import add_scaled, raw_product
from .slice_layout import SHAPE, SliceLayout
from .tensor_copy import matrix_map, tensor_copy
from .warp_lanes import warp_here
from .weight_chunk import WeightChunk


def down_map[
    block_bytes: Int
](
    bytes: TensorPointer[UInt8],
    layer: LayerProblem,
    layout: SliceLayout,
    ctx: DeviceContext,
) raises -> TMADescriptor:
    """Makes a tensor map of down's elements or scales, whose boxes are what a warp
    multiplies with a slice.

    Parameters:
        block_bytes: Bytes of a block of a panel.

    Args:
        bytes: Where they start in device memory, at a multiple of 16 bytes.
        layer: The operands' sizes.
        layout: How panels are cut.
        ctx: The device.

    Returns:
        The tensor map.

    Raises:
        Error: If the driver refuses it.
    """
    comptime words = block_bytes // WORD_BYTES
    return matrix_map[.uint32, TensorMapSwizzle.SWIZZLE_NONE](
        bytes.unsafe_bitcast[UInt32](),
        Int(layer.experts * layer.features) // PANEL_FEATURES,
        Int(layout.slices.value) * words,
        Int(layout.down_panels),
        words,
        ctx,
    )


struct SliceDown[rows: Int](TrivialRegisterPassable):
    """The warp's panels, and their sums.

    All columns of a row stand for the same activations, so all lanes of a row have
    the same products, and share the panels among them.

    Parameters:
        rows: Rows that a row tile can have.
    """

    comptime _LANES = 4 // Self.rows
    """Lanes that have the same two features of the same row."""

    comptime _LANE_PANELS = ceildiv(SHAPE.chunk_blocks, Self._LANES)
    """Panels of a lane."""

    var chunk: WeightChunk[SHAPE]
    """The chunk that copies go to."""
    var barrier: SharedPointer[SharedMemBarrier]
    """What counts its bytes."""
    var count: Int32
    """Panels, of all warps alike: the last ones may have some that are not there,
    or are the next expert's, and drop their sums."""
    var sums: StaticTuple[SIMD[.float32, 2], Self._LANE_PANELS]
    """Of the lane's panels, its two features' sums over the segment."""

    @inline(.always)
    def __init__(
        out self,
        layer: LayerProblem,
        layout: SliceLayout,
        shared: SharedPointer[UInt8],
    ):
        """Finds a warp's panels.

        Args:
            layer: The operands and their sizes.
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
        """
        var warp = Int32(warp_id())
        self.chunk = WeightChunk[SHAPE](
            shared.unsafe_offset(SliceLayout.down_chunk(Int(warp)))
        )
        self.barrier = (
            shared.unsafe_offset(SliceLayout.barriers(Int(warp)))
            .unsafe_bitcast[SharedMemBarrier]()
            .unsafe_offset(SHAPE.slots)
        )
        self.count = layout.down_panels
        self.sums = type_of(self.sums)(fill=SIMD[.float32, 2](0))

    @inline(.always)
    def start_copy(
        self,
        blocks: Pointer[TMADescriptor, _],
        scales: Pointer[TMADescriptor, _],
        layer: LayerProblem,
        expert: Int32,
        slice: Int32,
    ):
        """Starts copying the blocks that meet a slice, with a whole warp.

        All lanes have read those before.

        Args:
            blocks: The tensor map of down's packed elements.
            scales: That of its scales.
            layer: The operands and their sizes.
            expert: The slice's expert.
            slice: The slice, of the expert's.
        """
        if elect_one_sync():
            self.barrier[].expect_bytes(
                self.count * Int32(PANEL_BLOCK_BYTES + PANEL_FEATURES)
            )
            var panel = (
                expert * (layer.features // Int32(PANEL_FEATURES))
                + self._first()
            )
            tensor_copy(
                self.chunk.start,
                blocks,
                panel,
                slice * Int32(PANEL_BLOCK_BYTES // WORD_BYTES),
                self.barrier,
            )
            tensor_copy(
                self.chunk.start.unsafe_offset(SHAPE.chunk_scales()),
                scales,
                panel,
                slice * Int32(PANEL_FEATURES // WORD_BYTES),
                self.barrier,
            )

    @inline(.always)
    def wait(self, number: UInt32) -> Bool:
        """Waits until a slice's copies have come.

        Args:
            number: The slice's number among the block's.

        Returns:
            Whether there may be scale bytes over 128.
        """
        self.barrier[].wait(number % 2)
        return self.chunk.has_large_scale(self.count)

    @inline(.always)
    def multiply(mut self, activations: SIMD[.bfloat16, 8], large: Bool):
        """Multiplies the warp's panels with a slice.

        Args:
            activations: What `SliceExchange.activations` returns.
            large: What `wait` returned.
        """
        if large:
            for panel in range(self.count):
                self._multiply_large(activations, panel)
        else:
            self._multiply(activations)
        # Every lane has read the chunk.
        syncwarp()

    @inline(.always)
    def _multiply(mut self, activations: SIMD[.bfloat16, 8]):
        # Past the last panel, products are of no use, and dropped.
        var lane = Int32(lane_id()) % Int32(Self._LANES)
        comptime for group in range(Self._LANE_PANELS):
            comptime first = group * Self._LANES
            var scales = self.chunk.scales[first](lane)
            var sums = self.sums[group]
            comptime for i in range(
                min(Self._LANES, SHAPE.chunk_blocks - first)
            ):
                var product = raw_product(
                    self.chunk.codes[first + i](0), activations
                )
                add_scaled[two_steps=False](
                    sums,
                    scales,
                    SIMD[.float32, 2](product[0], product[2]),
                    lane == Int32(i),
                )
            self.sums[group] = sums

    @inline(.always)
    def _multiply_large(
        mut self, activations: SIMD[.bfloat16, 8], panel: Int32
    ):
        # Such scales are rare, so what is short will do.
        var lane = Int32(lane_id()) % Int32(Self._LANES)
        var product = raw_product(self.chunk.codes[0](panel), activations)
        var scales = self.chunk.scales[0](panel)
        comptime for group in range(Self._LANE_PANELS):
            var sums = self.sums[group]
            add_scaled[two_steps=True](
                sums,
                scales,
                SIMD[.float32, 2](product[0], product[2]),
                lane + Int32(group * Self._LANES) == panel,
            )
            self.sums[group] = sums

    @inline(.always)
    def store(
        mut self,
        features: Int32,
        tile_rows: Int32,
        target: TensorPointer[Float32],
    ):
        """Stores the sums of a segment, and begins those of the next with zeros.

        Args:
            features: Features of a row.
            tile_rows: Rows of the segment's row tile.
            target: Where the first row's sums go.
        """
        var lane = Int32(lane_id())
        var row = lane % 4 // Int32(Self._LANES)
        var panel = lane % Int32(Self._LANES)
        var feature = (self._first() + panel) * Int32(
            PANEL_FEATURES
        ) + lane // 4 * 2
        var place = Int(row * features + feature)
        comptime for group in range(Self._LANE_PANELS):
            comptime first = group * Self._LANES
            if (
                row < tile_rows
                and Int32(first) + panel < self.count
                and feature + Int32(first * PANEL_FEATURES) < features
            ):
                target.unsafe_store[alignment=8](
                    place + first * PANEL_FEATURES, self.sums[group]
                )
            self.sums[group] = 0

    @inline(.always)
    def _first(self) -> Int32:
        # The warp's first panel.
        return warp_here() * self.count
