# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One warp's packed weights, copied to shared memory ahead of their use.

Every lane copies the 16 bytes of each weight row that it will read itself, so
that no barrier stands between a copy and its use, and a slot takes the next
copy as soon as its own lane has read it. Only scales, which are too small for
a copy each, are copied for the whole panel and shared by the warp.

What a step costs beside its products decides the speed of the whole kernel, so
pointers and offsets move on instead of being made anew, and the end of a panel
is asked for once a step.
"""

from std.utils import StaticTuple

from max.gpu import WARP_SIZE, lane_id, warp_id
from max.gpu.memory import (
    async_copy,
    async_copy_commit_group,
    async_copy_wait_group,
)

from .kernel_argument import TensorPointer
from .mxfp4 import BLOCK_BYTES
from .problem import MatmulProblem
from .stream_layout import (
    HALF_BLOCKS,
    HALF_BYTES,
    LANE_ROWS,
    STEP_BLOCKS,
    STEP_BYTES,
    SharedPointer,
    StreamLayout,
    StreamShape,
)
from .stream_schedule import PANEL_FEATURES, UnitSchedule

comptime _COPY_BYTES = 16

# A copy asks L2 for whole cache lines: rows do not begin where lines do, and a
# line's other half is needed soon. Memory then gives 4.1 TB/s instead of 3.7.
comptime _LINE_BYTES = Optional[Int](128)


struct WeightStream[shape: StreamShape](TrivialRegisterPassable):
    """The steps of a warp's panels, one after the other.

    Parameters:
        shape: How a thread block works.
    """

    var shared: SharedPointer[UInt8]
    """The block's shared memory."""
    var slot: Int32
    """Where this lane's bytes of the oldest step lie: what is read next, and
    overwritten after that."""
    var set: Int32
    """Which of the two sets of scales is copied to next."""
    var steps_left: Int32
    """Steps still to be copied of the panel that copies are in; none after the
    last panel."""
    var blocks: StaticTuple[TensorPointer[UInt8], LANE_ROWS]
    """This lane's first block of the step that is copied next, in each row."""
    var unit: Int32
    """The unit that copies are in."""
    var end_unit: Int32
    """The end of the block's units."""
    var tile: Int32
    """The row tile of the unit."""
    var panel: Int32
    """The panel of the unit, among those of its expert."""
    var first_panel: Int32
    """The expert's first panel in the stack."""

    @inline(.always)
    def __init__(
        out self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        shared: SharedPointer[UInt8],
        schedule: UnitSchedule,
        unit: Int,
        end_unit: Int,
    ):
        """Makes a stream of which only the first scales are on their way.

        Args:
            problem: The operands and their sizes.
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
            schedule: The row tiles.
            unit: The warp's first unit.
            end_unit: The end of the block's units.
        """
        self.shared = shared
        self.slot = Self._first_slot(layout)
        self.set = 0
        self.steps_left = 0
        self.blocks = StaticTuple[TensorPointer[UInt8], LANE_ROWS](
            fill=problem.blocks
        )
        self.unit = Int32(unit)
        self.end_unit = Int32(end_unit)
        self.tile, self.panel = divmod(
            Int32(unit), problem.features // Int32(PANEL_FEATURES)
        )
        self.first_panel = 0
        if unit < end_unit:
            self._find_expert(problem, schedule)
            self._begin_panel(problem, layout)

    @inline(.always)
    def copy_step(
        mut self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        schedule: UnitSchedule,
    ):
        """Starts copying the next step into the oldest slot, as one group.

        The slot after it becomes the oldest.

        Args:
            problem: The operands and their sizes.
            layout: Where things lie in shared memory.
            schedule: The row tiles.
        """
        if self.steps_left > 1:
            comptime for half in range(2):
                self._copy_half[half]()
            comptime for row in range(LANE_ROWS):
                self.blocks[row] = self.blocks[row].unsafe_offset(
                    STEP_BLOCKS * BLOCK_BYTES
                )
            self.steps_left -= 1
        elif self.steps_left == 1:
            # A lane may have no block in the last step, or only one.
            var lane_blocks = (
                Int32(layout.row_blocks() - (layout.steps() - 1) * STEP_BLOCKS)
                - Int32(lane_id()) % HALF_BLOCKS
            )
            comptime for half in range(2):
                if lane_blocks > Int32(half * HALF_BLOCKS):
                    self._copy_half[half]()
            self._next_panel(problem, layout, schedule)
        async_copy_commit_group()
        self.slot += Int32(STEP_BYTES)
        var first_slot = Self._first_slot(layout)
        if self.slot == first_slot + Int32(Self.shape.slots * STEP_BYTES):
            self.slot = first_slot

    @inline(.always)
    def wait(self):
        """Waits until this lane's bytes of the oldest step have arrived."""
        async_copy_wait_group(Int32(Self.shape.slots - 1))

    @staticmethod
    @inline(.always)
    def _first_slot(layout: StreamLayout[Self.shape]) -> Int32:
        return Int32(
            layout.slots(Int(warp_id())) + Int(lane_id()) * _COPY_BYTES
        )

    @inline(.always)
    def _copy_half[half: Int](self):
        var target = self.shared.unsafe_offset(Int(self.slot))
        comptime for row in range(LANE_ROWS):
            async_copy[_COPY_BYTES, l2_prefetch=_LINE_BYTES](
                self.blocks[row]
                .unsafe_offset(half * HALF_BLOCKS * BLOCK_BYTES)
                .unsafe_address_space_cast[.GLOBAL](),
                target.unsafe_offset(
                    half * HALF_BYTES + row * WARP_SIZE * _COPY_BYTES
                ),
            )

    @inline(.always)
    def _next_panel(
        mut self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        schedule: UnitSchedule,
    ):
        self.steps_left = 0
        self.unit += Int32(Self.shape.warps)
        if self.unit >= self.end_unit:
            return
        self.panel += Int32(Self.shape.warps)
        var panels = problem.features // Int32(PANEL_FEATURES)
        if self.panel >= panels:
            while self.panel >= panels:
                self.panel -= panels
                self.tile += 1
            self._find_expert(problem, schedule)
        self._begin_panel(problem, layout)

    @inline(.always)
    def _find_expert(mut self, problem: MatmulProblem, schedule: UnitSchedule):
        self.first_panel = Int32(schedule.row_tile(Int(self.tile)).expert) * (
            problem.features // Int32(PANEL_FEATURES)
        )

    @inline(.always)
    def _begin_panel(
        mut self, problem: MatmulProblem, layout: StreamLayout[Self.shape]
    ):
        # The scales are copied in the group of the panel's first step.
        var panel = Int(self.first_panel + self.panel)
        var lane = Int(lane_id())
        var row_bytes = layout.row_blocks() * BLOCK_BYTES
        comptime for row in range(LANE_ROWS):
            self.blocks[row] = problem.blocks.unsafe_offset(
                (panel * PANEL_FEATURES + lane // HALF_BLOCKS * LANE_ROWS + row)
                * row_bytes
                + lane % HALF_BLOCKS * BLOCK_BYTES
            )
        var source = problem.scales.unsafe_offset(panel * layout.scale_bytes())
        var target = self.shared.unsafe_offset(
            layout.scales(Int(warp_id()), Int(self.set))
        )
        for at in range(
            lane * _COPY_BYTES, layout.scale_bytes(), WARP_SIZE * _COPY_BYTES
        ):
            async_copy[_COPY_BYTES, l2_prefetch=_LINE_BYTES](
                source.unsafe_offset(at).unsafe_address_space_cast[.GLOBAL](),
                target.unsafe_offset(at),
            )
        self.set ^= 1
        self.steps_left = Int32(layout.steps())
