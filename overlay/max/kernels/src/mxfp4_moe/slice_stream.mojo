# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One warp's packed weights of both projections, copied ahead of their use.

Each segment's gate and up panels come first, cut along K, then its blocks of all
panels of `down`, several panels a chunk. Copies go on from one to the other, and to
the next segment, whatever the block's warps wait for.
"""

from layout.tma_async import SharedMemBarrier
from max.gpu import lane_id, warp_id
from max.gpu.sync import barrier, syncwarp

from .bulk_copy import SharedPointer
from .layer_problem import ExpertStack, LayerProblem
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .slice_layout import PARTS, SHAPE, SLICE_PANELS, SliceLayout
from .slice_schedule import BlockShare, Segment, SliceSchedule
from .weight_chunk import WeightChunk


struct SliceStream(TrivialRegisterPassable):
    """The chunks of a warp, one after the other."""

    var slots: SharedPointer[UInt8]
    """The warp's slots."""
    var barriers: SharedPointer[SharedMemBarrier]
    """Their barriers."""
    var slot: Int32
    """The oldest slot: what is read next, and overwritten after that."""
    var phase: UInt32
    """The parity that its barrier waits for."""
    var segment: Segment
    """The segment that copies are in."""
    var left: Int32
    """The block's slices from that segment on; none when copies have ended."""
    var in_down: Bool
    """Whether copies are in `down`."""
    var item: Int32
    """The part of a panel, or the panel of `down`, that the warp copies next."""
    var items: Int32
    """The end of the segment's parts, or of the warp's panels."""
    var chunk: Int32
    """The part's chunk that comes next."""

    @inline(.always)
    def __init__(
        out self,
        layer: LayerProblem,
        layout: SliceLayout,
        shared: SharedPointer[UInt8],
        schedule: SliceSchedule,
        share: BlockShare,
    ):
        """Makes a stream, and fills its slots, with all threads of the block.

        Copies come in the order in which they are asked for. So every warp asks
        for its first chunk before any asks for its second: what all need first
        does not wait for what some need later.

        Args:
            layer: The operands and their sizes.
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            schedule: The row tiles.
            share: The block's slices, not none.
        """
        var warp = Int(warp_id())
        self.slots = shared.unsafe_offset(layout.slots(warp))
        self.barriers = shared.unsafe_offset(
            layout.barriers(warp)
        ).unsafe_bitcast[SharedMemBarrier]()
        self.slot = 0
        # Filling all slots goes around once.
        self.phase = 1
        self.segment = schedule.first_segment(share)
        self.left = share.end - share.first
        self.in_down = False
        self.item = Int32(warp)
        self.items = gate_up_items(self.segment.count)
        self.chunk = 0
        self._find_item(layer, layout, schedule)
        for _ in range(SHAPE.slots):
            self.next_chunk(layer, layout, schedule)
            barrier()

    @inline(.always)
    def chunk_here(self) -> WeightChunk[SHAPE]:
        """Waits until the oldest slot's chunk has come.

        Returns:
            The chunk.
        """
        self.barriers[unsafe_offset=Int(self.slot)].wait(self.phase)
        return WeightChunk[SHAPE](self._target())

    @inline(.always)
    def next_chunk(
        mut self,
        layer: LayerProblem,
        layout: SliceLayout,
        schedule: SliceSchedule,
    ):
        """Starts copying into the oldest slot, which all lanes have read.

        The slot after it becomes the oldest.

        Args:
            layer: The operands and their sizes.
            layout: Where things lie in shared memory.
            schedule: The row tiles.
        """
        if self.left > 0:
            if self.in_down:
                self._copy_down(layer, layout)
            else:
                self._copy_gate_up(layer, layout)
                self.chunk += 1
            self._find_item(layer, layout, schedule)
        self.slot += 1
        if self.slot == Int32(SHAPE.slots):
            self.slot = 0
            self.phase ^= 1

    @inline(.always)
    def _find_item(
        mut self,
        layer: LayerProblem,
        layout: SliceLayout,
        schedule: SliceSchedule,
    ):
        # Where the warp has no more items, goes on with what comes next.
        while True:
            if self.item < self.items:
                if self.in_down or self.chunk < part_chunks(
                    layout, self.item % PARTS
                ):
                    return
                self.chunk = 0
                self.item += Int32(SHAPE.warps)
                continue
            var warp = Int32(warp_id())
            if self.in_down:
                self.left -= self.segment.count
                if self.left == 0:
                    return
                self.segment = schedule.next_segment(self.segment, self.left)
                self.item = warp
                self.items = gate_up_items(self.segment.count)
            else:
                self.item = first_down_panel(layer, warp)
                self.items = first_down_panel(layer, warp + 1)
            self.in_down = not self.in_down

    @inline(.always)
    def _copy_gate_up(self, layer: LayerProblem, layout: SliceLayout):
        var panel = Int32(UInt32(self.item) // PARTS)
        var first = first_block(layout, self.item - panel * PARTS, self.chunk)
        var blocks = min(Int32(SHAPE.chunk_blocks), layout.token_blocks - first)
        var in_expert = self.segment.first * SLICE_PANELS + panel
        var panels = layout.width_blocks * SLICE_PANELS
        if lane_id() == 0:
            self._expect(blocks)
            self._copy(
                layer.gate_up,
                (self.segment.expert * panels + in_expert) * layout.token_blocks
                + first,
                0,
                blocks,
            )

    @inline(.always)
    def _copy_down(mut self, layer: LayerProblem, layout: SliceLayout):
        var blocks = self.segment.count
        var panels = layer.features // PANEL_FEATURES
        var count = min(down_panels(blocks), self.items - self.item)
        var lane = Int32(lane_id())
        if lane == 0:
            self._expect(count * blocks)
        # No byte comes before it is expected.
        syncwarp()
        if lane < count:
            var in_stack = (
                self.segment.expert * panels + self.item + lane
            ) * layout.width_blocks + self.segment.first
            self._copy(layer.down, in_stack, lane * blocks, blocks)
        self.item += count

    @inline(.always)
    def _expect(self, blocks: Int32):
        self.barriers.unsafe_offset(Int(self.slot))[].expect_bytes(
            blocks * Int32(PANEL_BLOCK_BYTES + PANEL_FEATURES)
        )

    @inline(.always)
    def _copy(
        self, stack: ExpertStack, block: Int32, place: Int32, blocks: Int32
    ):
        WeightChunk[SHAPE](self._target()).copy(
            stack.blocks,
            stack.scales,
            block,
            place,
            blocks,
            self.barriers.unsafe_offset(Int(self.slot)),
        )

    @inline(.always)
    def _target(self) -> SharedPointer[UInt8]:
        return self.slots.unsafe_offset(
            Int(self.slot * Int32(SHAPE.chunk_bytes()))
        )


@inline(.always)
def gate_up_items(slices: Int32) -> Int32:
    """Counts the parts of a segment's gate and up panels.

    Args:
        slices: The segment's slices.

    Returns:
        The parts: those of a panel follow each other.
    """
    return slices * Int32(SLICE_PANELS * PARTS)


@inline(.always)
def first_block(layout: SliceLayout, part: Int32, chunk: Int32) -> Int32:
    """Finds where a chunk of a part begins.

    Args:
        layout: How panels are cut.
        part: The part of K.
        chunk: The part's chunk.

    Returns:
        The first block along K.
    """
    return (part * layout.part_chunks + chunk) * Int32(SHAPE.chunk_blocks)


@inline(.always)
def part_chunks(layout: SliceLayout, part: Int32) -> Int32:
    """Counts the chunks of a part.

    Args:
        layout: How panels are cut.
        part: The part of K.

    Returns:
        The chunks: none or less where K is short.
    """
    comptime chunk = UInt32(SHAPE.chunk_blocks)
    var chunks = (UInt32(layout.token_blocks) + chunk - 1) // chunk
    return min(layout.part_chunks, Int32(chunks) - part * layout.part_chunks)


@inline(.always)
def down_panels(slices: Int32) -> Int32:
    """Counts the panels of `down` that share a chunk.

    Args:
        slices: Blocks along K that each of them has there.

    Returns:
        The panels, one of the numbers that products are compiled for.
    """
    if slices <= 3:
        return 5
    if slices <= 6:
        return 3
    if slices <= 9:
        return 2
    return 1


@inline(.always)
def first_down_panel(layer: LayerProblem, warp: Int32) -> Int32:
    """Finds where a warp's panels of `down` begin.

    Args:
        layer: The operands and their sizes.
        warp: The warp, or the number of them.

    Returns:
        The panel: the end of the warp's before it.
    """
    comptime warps = UInt32(SHAPE.warps)
    var panels = UInt32(layer.features) // PANEL_FEATURES
    var each = (panels + warps - 1) // warps
    return Int32(min(UInt32(warp) * each, panels))
