# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One warp's packed gate and up weights, copied ahead of their use.

A warp has the same part of the same panel in each slice. Its chunks of one slice
after the other go around a ring, whatever the block's warps wait for.
"""

from layout.tma_async import SharedMemBarrier
from max.gpu import warp_id
from max.gpu.primitives.cluster import elect_one_sync
from max.gpu.sync import barrier

from .bulk_copy import SharedPointer
from .layer_problem import LayerProblem
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .slice_layout import SHAPE, SLICE_PANELS, PanelPart, SliceLayout
from .slice_schedule import BlockShare, SliceSchedule
from .weight_chunk import WeightChunk


struct SliceStream(TrivialRegisterPassable):
    """The chunks of a warp, one after the other."""

    var slots: SharedPointer[UInt8]
    """The warp's slots."""
    var barriers: SharedPointer[SharedMemBarrier]
    """Their barriers."""
    var turns: UInt32
    """How often a slot was filled. Slots take turns, so this tells which is the
    oldest: what is read next, and overwritten after that."""
    var part: PanelPart
    """What the warp copies of each slice."""
    var slice: Int32
    """The number of the slice that copies are in."""
    var end: Int32
    """The number after the block's last slice."""
    var chunk_start: Int32
    """The next chunk's first block, of the part's."""

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
            share: The block's slices.
        """
        var warp = Int(warp_id())
        self.slots = shared.unsafe_offset(SliceLayout.slots(warp))
        self.barriers = shared.unsafe_offset(
            SliceLayout.barriers(warp)
        ).unsafe_bitcast[SharedMemBarrier]()
        self.turns = 0
        self.part = layout.panel_part(Int32(warp))
        self.slice = share.first if self.part.blocks > 0 else share.end
        self.end = share.end
        self.chunk_start = 0
        for slot in range(SHAPE.slots):
            if slot > 0:
                barrier()
            self.next_chunk(layer, layout, schedule)

    @inline(.always)
    def chunk_here(self) -> WeightChunk[SHAPE]:
        """Waits until the oldest slot's chunk has come.

        Returns:
            The chunk.
        """
        comptime slots = UInt32(SHAPE.slots)
        self._barrier()[].wait((self.turns - slots) // slots % 2)
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
        if self.slice < self.end:
            if elect_one_sync():
                self._copy(layer, layout, schedule)
            self.chunk_start += Int32(SHAPE.chunk_blocks)
            if self.chunk_start >= self.part.blocks:
                self.chunk_start = 0
                self.slice += 1
        self.turns += 1

    @inline(.always)
    def _copy(
        self,
        layer: LayerProblem,
        layout: SliceLayout,
        schedule: SliceSchedule,
    ):
        var place = layout.place(self.slice)
        var slice = (
            schedule.expert_of(place.tile) * layout.slices.value + place.slice
        )
        var blocks = min(
            Int32(SHAPE.chunk_blocks), self.part.blocks - self.chunk_start
        )
        var barrier = self._barrier()
        barrier[].expect_bytes(
            blocks * Int32(PANEL_BLOCK_BYTES + PANEL_FEATURES)
        )
        WeightChunk[SHAPE](self._target()).copy[once=True](
            layer.gate_up.blocks,
            layer.gate_up.scales,
            slice * layout.token_blocks * Int32(SLICE_PANELS)
            + self.part.start
            + self.chunk_start,
            blocks,
            barrier,
        )

    @inline(.always)
    def _barrier(self) -> SharedPointer[SharedMemBarrier]:
        return self.barriers.unsafe_offset(
            Int(self.turns % UInt32(SHAPE.slots))
        )

    @inline(.always)
    def _target(self) -> SharedPointer[UInt8]:
        return self.slots.unsafe_offset(
            Int(self.turns % UInt32(SHAPE.slots) * UInt32(SHAPE.chunk_bytes()))
        )
