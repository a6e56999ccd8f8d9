# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A segment's products, with `mma.sync`: gate and up, the activation, then `down`.

The activations between the projections never leave the thread block. What it has
multiplied with `down` is a part of the sum over K, which `slice_sums.mojo` adds to
those of the other blocks.
"""

from std.utils import StaticTuple

from max.gpu import lane_id, thread_idx, warp_id
from max.gpu.compute.mma import mma
from max.gpu.sync import syncwarp

from .activation_rows import LaneRows
from .bulk_copy import SharedPointer
from .epilogue import clamped_swiglu, load_biases
from .expand_sm90 import expand_panel_word, fragment
from .kernel_argument import TensorPointer
from .layer_problem import LayerProblem
from .mxfp4 import BLOCK_ELEMENTS
from .panel_products import PanelProducts
from .panels import PANEL_FEATURES
from .slice_layout import (
    PARTS,
    SHAPE,
    SLICE_FEATURES,
    SLICE_PANELS,
    SliceLayout,
)
from .slice_schedule import Segment, SliceSchedule, TILE_ROWS
from .slice_stream import (
    SliceStream,
    down_panels,
    first_down_panel,
    first_block,
    gate_up_items,
    part_chunks,
)
from .subnormals import round_to_bf16
from .weight_chunk import WeightChunk

comptime _PANEL_SUMS = TILE_ROWS * PANEL_FEATURES
# Sums of a panel and a row tile.


@fieldwise_init
struct SegmentProducts(TrivialRegisterPassable):
    """What the warps of a block need for the products of a segment."""

    var layer: LayerProblem
    """The operands and their sizes."""
    var layout: SliceLayout
    """Where things lie in shared memory."""
    var shared: SharedPointer[UInt8]
    """The block's shared memory."""
    var schedule: SliceSchedule
    """The row tiles."""
    var segment: Segment
    """The segment."""

    @inline(.always)
    def multiply_gate_up(self, mut weights: SliceStream):
        """Multiplies the warp's parts of the gate and up panels.

        Args:
            weights: The warp's packed weights.
        """
        var rows = self._token_rows()
        var item = Int32(warp_id())
        while item < gate_up_items(self.segment.count):
            var part = Int32(UInt32(item) % PARTS)
            var first = first_block(self.layout, part, 0)
            var part_rows = rows
            part_rows.advance(first)
            var products = PanelProducts[SHAPE, 1](
                StaticTuple[LaneRows, 1](fill=part_rows)
            )
            var left = self.layout.token_blocks - first
            for _ in range(part_chunks(self.layout, part)):
                products.add_chunk(
                    weights.chunk_here(), min(left, Int32(SHAPE.chunk_blocks))
                )
                left -= Int32(SHAPE.chunk_blocks)
                # Every lane has read the chunk.
                syncwarp()
                weights.next_chunk(self.layer, self.layout, self.schedule)
            self._keep(item, products.totals()[0])
            item += Int32(SHAPE.warps)

    @inline(.always)
    def activate[alpha: Float32, limit: Float32](self):
        """Adds the parts and the biases, and applies SwiGLU, with all threads.

        Parameters:
            alpha: The sigmoid's slope.
            limit: The clamp.
        """
        var features = self.segment.count * Int32(SLICE_FEATURES)
        var sums = self._part_sums()
        for at in range(
            Int32(thread_idx.x),
            self.segment.rows * features,
            Int32(SHAPE.threads()),
        ):
            var row = Int32(UInt32(at) // UInt32(features))
            var feature = at - row * features
            var biases = load_biases(
                self.layer.gate_up.bias,
                Int(self.segment.expert),
                2 * self.layer.width,
                Int(2 * (self.segment.first * Int32(SLICE_FEATURES) + feature)),
            )
            comptime pairs = Int32(PANEL_FEATURES // 2)
            var panel = Int32(UInt32(feature) // UInt32(pairs))
            var place = (
                panel * Int32(PARTS * _PANEL_SUMS)
                + row * Int32(PANEL_FEATURES)
                + 2 * (feature - panel * pairs)
            )
            # Always in the same order.
            var sum = biases
            comptime for part in range(PARTS):
                sum += sums.unsafe_load[width=2, alignment=8](
                    Int(place + Int32(part * _PANEL_SUMS))
                )
            self._gated_row(row).unsafe_bitcast[BFloat16]()[
                unsafe_offset=Int(feature)
            ] = round_to_bf16(clamped_swiglu[alpha, limit](sum[0], sum[1]))

    @inline(.always)
    def multiply_down(
        self, mut weights: SliceStream, sums: TensorPointer[Float32]
    ):
        """Multiplies the warp's chunks of `down` and stores the sums.

        Args:
            weights: The warp's packed weights.
            sums: Float32 `[rows of the tile, features]`, the segment's.
        """
        var warp = Int32(warp_id())
        var rows = self._gated_rows()
        var together = down_panels(self.segment.count)
        var panel = first_down_panel(self.layer, warp)
        var end = first_down_panel(self.layer, warp + 1)
        var blocks = self.segment.count
        while panel < end:
            var chunk = weights.chunk_here()
            var count = min(together, end - panel)
            if chunk.has_large_scale(count * blocks):
                # They are rare, so one loop for all numbers of panels will do.
                for i in range(count):
                    self._store(
                        _panel_sums[1, two_steps=True](
                            chunk, rows, blocks, i * blocks
                        ),
                        panel + i,
                        1,
                        sums,
                    )
            else:
                comptime for panels in [5, 3, 2, 1]:
                    if together == Int32(panels):
                        self._store(
                            _panel_sums[panels, two_steps=False](
                                chunk, rows, blocks, 0
                            ),
                            panel,
                            count,
                            sums,
                        )
            syncwarp()
            weights.next_chunk(self.layer, self.layout, self.schedule)
            panel += count

    @inline(.always)
    def _store[
        panels: Int
    ](
        self,
        totals: _Sums[panels],
        first: Int32,
        count: Int32,
        sums: TensorPointer[Float32],
    ):
        var lane = Int32(lane_id())
        var row = lane % 4 * 2
        comptime for panel in range(panels):
            if Int32(panel) < count:
                var feature = (first + Int32(panel)) * Int32(
                    PANEL_FEATURES
                ) + lane // 4 * 2
                comptime for i in range(2):
                    if row + Int32(i) < self.segment.rows:
                        sums.unsafe_store[alignment=8](
                            Int(
                                (row + Int32(i)) * self.layer.features + feature
                            ),
                            SIMD[.float32, 2](
                                totals[panel][i], totals[panel][2 + i]
                            ),
                        )

    @inline(.always)
    def _keep(self, item: Int32, sums: SIMD[.float32, 4]):
        # A part's sums: of each row, 16 features side by side.
        var lane = Int32(lane_id())
        var row = lane % 4 * 2
        var place = item * Int32(_PANEL_SUMS) + lane // 4 * 2
        comptime for i in range(2):
            if row + Int32(i) < self.segment.rows:
                self._part_sums().unsafe_store[alignment=8](
                    Int(place + (row + Int32(i)) * Int32(PANEL_FEATURES)),
                    SIMD[.float32, 2](sums[i], sums[2 + i]),
                )

    @inline(.always)
    def _part_sums(self) -> SharedPointer[Float32]:
        return self.shared.unsafe_offset(
            self.layout.part_sums()
        ).unsafe_bitcast[Float32]()

    @inline(.always)
    def _gated_row(self, row: Int32) -> SharedPointer[UInt8]:
        return self.shared.unsafe_offset(
            self.layout.gated_rows()
            + Int(row * Int32(self.layout.gated_bytes()))
        )

    @inline(.always)
    def _token_rows(self) -> LaneRows:
        var row = Int32(lane_id()) % 8
        var start = self.shared.unsafe_offset(self.layout.no_row())
        var step = Int32(0)
        if row < self.segment.rows:
            var token = self.schedule.tokens[
                unsafe_offset=Int(self.segment.tile * TILE_ROWS + row)
            ]
            start = self.shared.unsafe_offset(
                self.layout.token_rows()
                + Int(token * Int32(self.layout.token_bytes()))
            )
            step = Int32(BLOCK_ELEMENTS * 2)
        return LaneRows.of(start, step)

    @inline(.always)
    def _gated_rows(self) -> LaneRows:
        var row = Int32(lane_id()) % 8
        var start = self.shared.unsafe_offset(self.layout.no_row())
        if row < self.segment.rows:
            start = self._gated_row(row)
        return LaneRows.of(start, Int32(BLOCK_ELEMENTS * 2))


comptime _Sums[panels: Int] = StaticTuple[SIMD[.float32, 4], panels]


@inline(.always)
def _panel_sums[
    panels: Int, *, two_steps: Bool
](
    chunk: WeightChunk[SHAPE], rows: LaneRows, blocks: Int32, first: Int32
) -> _Sums[panels]:
    # A panel alone has a chain for each half of a block, so that no product
    # waits for the one before it.
    comptime chains = 2 if panels <= 2 else 1
    var sums = StaticTuple[SIMD[.float32, 4], chains * panels](
        fill=SIMD[.float32, 4](0)
    )
    for block in range(blocks):
        # Zeros and rows alike are as long as a chunk's blocks.
        var pairs = rows.load[0](block)
        comptime for panel in range(panels):
            var at = first + Int32(panel) * blocks + block
            var words = chunk.codes[0](at)
            var scales = chunk.scales[0](at)
            var even = expand_panel_word[two_steps](words[0], scales[0])
            var odd = expand_panel_word[two_steps](words[1], scales[1])
            comptime for half in range(2):
                comptime at_chain = half % chains * panels + panel
                var sum = sums[at_chain]
                mma(
                    sum,
                    fragment[half](even, odd),
                    pairs.slice[4, offset=4 * half](),
                    sum,
                )
                sums[at_chain] = sum
    var totals = _Sums[panels](fill=SIMD[.float32, 4](0))
    comptime for panel in range(panels):
        comptime for chain in range(chains):
            totals[panel] += sums[chain * panels + panel]
    return totals
