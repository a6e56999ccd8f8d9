# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One warp's packed weights, copied to shared memory ahead of their use.

Every lane copies the 16 bytes of each weight row that it will read itself, so
that no barrier stands between a copy and its use. Only scales, which are too
small for a copy each, are copied for the whole panel and shared by the warp.

What a step costs beside its products decides the speed of the whole kernel, so
offsets into shared memory are 32 bits wide and move on instead of being made
anew.
"""

from max.gpu import WARP_SIZE, lane_id, warp_id
from max.gpu.memory import (
    async_copy,
    async_copy_commit_group,
    async_copy_wait_group,
)
from max.gpu.sync import syncwarp

from .kernel_argument import TensorPointer
from .mxfp4 import BLOCK_BYTES
from .problem import MatmulProblem
from .stream_layout import (
    STEP_BLOCKS,
    STEP_BYTES,
    WARPS,
    SharedPointer,
    StreamLayout,
    StreamShape,
)
from .stream_schedule import PANEL_FEATURES, UnitSchedule

comptime _COPY_BYTES = 16
comptime _STRIDE = STEP_BLOCKS * BLOCK_BYTES
"""Bytes of a weight row from one step to the next."""


struct WeightStream[shape: StreamShape](TrivialRegisterPassable):
    """The steps of a warp's panels, one after the other.

    Parameters:
        shape: How a thread block works.
    """

    comptime _AHEAD = Self.shape.slots - 1

    var shared: SharedPointer[UInt8]
    """The block's shared memory."""
    var scales: Int32
    """Where the warp's scales start: two sets."""
    var scale_bytes: Int32
    """Scales of a panel."""
    var first_slot: Int32
    """Where this lane's bytes of the first slot lie."""
    var slot: Int32
    """Where this lane's bytes of the slot lie that is copied to next."""
    var set: Int32
    """The set of scales that is copied to next."""
    var panels: Int32
    """Panels of an expert."""
    var unit: Int32
    """The unit after the one that copies are in."""
    var end_unit: Int32
    """The end of the block's units."""
    var tile: Int32
    """The row tile of the expert below."""
    var first_panel: Int
    """The first panel of that expert in the stack."""
    var steps: Int32
    """Steps of a panel."""
    var steps_left: Int32
    """Those that are still to be copied of the panel that copies are in."""
    var last_stride: Int32
    """Bytes from the last but one step's block to the last step's. A lane whose
    last block would be past the row copies another one."""
    var block: TensorPointer[UInt8]
    """This lane's block of the step that is copied next, of its first row."""
    var row_bytes: Int
    """Packed elements of a weight row."""

    @inline(.always)
    def __init__(
        out self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        shared: SharedPointer[UInt8],
        panels: Int,
        unit: Int,
        end_unit: Int,
    ):
        """Makes a stream of which nothing has been copied yet.

        Args:
            problem: The operands and their sizes.
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            panels: Panels of an expert.
            unit: The warp's first unit.
            end_unit: The end of the block's units.
        """
        var warp = Int(warp_id())
        var lane = Int(lane_id())
        self.shared = shared
        self.scales = Int32(layout.scales(warp))
        self.scale_bytes = Int32(layout.scale_bytes())
        self.first_slot = Int32(layout.slots(warp) + lane * _COPY_BYTES)
        self.slot = self.first_slot
        self.set = 0
        self.panels = Int32(panels)
        self.unit = Int32(unit)
        self.end_unit = Int32(end_unit)
        self.tile = -1
        self.first_panel = 0
        self.steps = Int32(layout.steps())
        self.steps_left = 0
        var last_block = (layout.steps() - 1) * STEP_BLOCKS + lane % 4
        self.last_stride = Int32(
            _STRIDE if last_block < layout.row_blocks() else 0
        )
        self.block = problem.blocks
        self.row_bytes = layout.row_blocks() * BLOCK_BYTES

    @inline(.always)
    def copy_step(mut self, problem: MatmulProblem, schedule: UnitSchedule):
        """Starts copying the next step, in a group of its own.

        Args:
            problem: The operands and their sizes.
            schedule: The row tiles.
        """
        if self.steps_left == 0 and self.unit < self.end_unit:
            self._enter_panel(problem, schedule)
        if self.steps_left != 0:
            var target = self.shared.unsafe_offset(Int(self.slot))
            comptime for i in range(2):
                async_copy[_COPY_BYTES](
                    self.block.unsafe_offset(
                        i * self.row_bytes
                    ).unsafe_address_space_cast[.GLOBAL](),
                    target.unsafe_offset(i * WARP_SIZE * _COPY_BYTES),
                )
            self.slot = next_slot[Self.shape](self.slot, self.first_slot)
            self.steps_left -= 1
            self.block = self.block.unsafe_offset(
                Int(self.last_stride) if self.steps_left == 1 else _STRIDE
            )
        async_copy_commit_group()

    @inline(.always)
    def _enter_panel(mut self, problem: MatmulProblem, schedule: UnitSchedule):
        var tile, panel = divmod(self.unit, self.panels)
        if tile != self.tile:
            self.tile = tile
            self.first_panel = schedule.row_tile(Int(tile)).expert * Int(
                self.panels
            )
        var lane = Int(lane_id())
        var stack_panel = self.first_panel + Int(panel)
        # A lane's two rows are neighbouring features.
        self.block = problem.blocks.unsafe_offset(
            (stack_panel * PANEL_FEATURES + lane // 4 * 2) * self.row_bytes
            + lane % 4 * BLOCK_BYTES
        )
        var source = problem.scales.unsafe_offset(
            stack_panel * Int(self.scale_bytes)
        )
        var target = self.shared.unsafe_offset(
            Int(self.scales + self.set * self.scale_bytes)
        )
        for at in range(
            lane * _COPY_BYTES, Int(self.scale_bytes), WARP_SIZE * _COPY_BYTES
        ):
            async_copy[_COPY_BYTES](
                source.unsafe_offset(at).unsafe_address_space_cast[.GLOBAL](),
                target.unsafe_offset(at),
            )
        self.set ^= 1
        self.steps_left = self.steps
        self.unit += Int32(WARPS)

    @inline(.always)
    def wait[steps: Int](self):
        """Waits for the next steps to arrive.

        Parameters:
            steps: How many.
        """
        comptime assert steps <= Self._AHEAD
        async_copy_wait_group(Int32(Self._AHEAD - steps))
        syncwarp()


@inline(.always)
def next_slot[shape: StreamShape](slot: Int32, first_slot: Int32) -> Int32:
    """Returns where the slot after another one lies.

    Parameters:
        shape: How a thread block works.

    Args:
        slot: Where the slot lies.
        first_slot: Where the first one lies.
    """
    var next = slot + Int32(STEP_BYTES)
    return (
        first_slot if next
        == first_slot + Int32(shape.slots * STEP_BYTES) else next
    )
