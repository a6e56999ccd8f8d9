# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The stages between the copying and the multiplying warps."""

from layout.tma_async import SharedMemBarrier
from max.gpu import thread_idx
from max.gpu.memory import (
    async_copy_commit_group,
    async_copy_wait_group,
    fence_async_view_proxy,
    fence_mbarrier_init,
)
from max.gpu.sync import barrier

from .bulk_copy import SharedPointer
from .prefill_layout import (
    CONSUMER_THREADS,
    PRODUCER_THREADS,
    MAX_STAGES,
    STAGE_BYTES,
)

comptime COPIES_AHEAD = 2
"""Stages whose copies are still on their way when the one before them is handed
over."""


@inline(.always)
def make_barriers(barriers: SharedPointer[SharedMemBarrier]):
    """Makes the barriers, together with all threads of the block.

    Args:
        barriers: Room for `2 * MAX_STAGES` barriers: for each stage, whether its
            bytes are there, then for each, whether every consumer is done.
    """
    if thread_idx.x == 0:
        comptime for i in range(MAX_STAGES):
            barriers[unsafe_offset=i].init(Int32(PRODUCER_THREADS))
            barriers[unsafe_offset=MAX_STAGES + i].init(Int32(CONSUMER_THREADS))
        fence_mbarrier_init()
    barrier()


@fieldwise_init
struct Place(TrivialRegisterPassable):
    """One side's place in the ring."""

    var stage: Int32
    """The stage of the next step."""
    var phase: UInt32
    """The parity that its barrier waits for."""
    var stages: Int32
    """The stages there are."""

    @inline(.always)
    def advance(mut self):
        """Goes on to the next stage."""
        self.stage += 1
        if self.stage == self.stages:
            self.stage = 0
            self.phase ^= 1


struct FillingRing(TrivialRegisterPassable):
    """The side of the warps that copy, with `cp.async`.

    A stage is handed over when its copies have arrived and are visible to
    `wgmma`, which reads shared memory through another proxy than copies write.
    """

    var barriers: SharedPointer[SharedMemBarrier]
    """The barriers."""
    var place: Place
    """The stage to fill."""
    var handed: Int32
    """The stage to hand over next, or negative before there is one."""

    @inline(.always)
    def __init__(
        out self, barriers: SharedPointer[SharedMemBarrier], stages: Int32
    ):
        """Begins with all stages empty.

        Args:
            barriers: What `make_barriers` made.
            stages: The stages there are.
        """
        self.barriers = barriers
        self.place = Place(0, 1, stages)
        self.handed = Int32(-COPIES_AHEAD)

    @inline(.always)
    def offset(self) -> Int:
        """Returns where the stage starts.

        Returns:
            The offset in bytes.
        """
        return Int(self.place.stage) * STAGE_BYTES

    @inline(.always)
    def wait_empty(self):
        """Waits until the stage may be filled."""
        self.barriers[unsafe_offset=MAX_STAGES + Int(self.place.stage)].wait(
            self.place.phase
        )

    @inline(.always)
    def await_older(self):
        """Ends a stage, whose copies have begun, and waits for those of the
        stage that `hand_over` is about to hand over."""
        async_copy_commit_group()
        async_copy_wait_group(Int32(COPIES_AHEAD))
        fence_async_view_proxy()

    @inline(.always)
    def hand_over(mut self):
        """Hands over an older stage and goes on to the next."""
        self._hand_over()
        self.place.advance()

    @inline(.always)
    def finish(mut self):
        """Hands over what is left."""
        async_copy_wait_group(0)
        fence_async_view_proxy()
        comptime for _ in range(COPIES_AHEAD):
            self._hand_over()

    @inline(.always)
    def _hand_over(mut self):
        if self.handed >= 0:
            _ = self.barriers[unsafe_offset=Int(self.handed)].arrive()
        self.handed += 1
        if self.handed == self.place.stages:
            self.handed = 0


struct DrainingRing(TrivialRegisterPassable):
    """The side of the warps that multiply."""

    var barriers: SharedPointer[SharedMemBarrier]
    """The barriers."""
    var place: Place
    """The stage to multiply."""

    @inline(.always)
    def __init__(
        out self, barriers: SharedPointer[SharedMemBarrier], stages: Int32
    ):
        """Begins with the first stage.

        Args:
            barriers: What `make_barriers` made.
            stages: The stages there are.
        """
        self.barriers = barriers
        self.place = Place(0, 0, stages)

    @inline(.always)
    def offset(self) -> Int:
        """Returns where the stage starts.

        Returns:
            The offset in bytes.
        """
        return Int(self.place.stage) * STAGE_BYTES

    @inline(.always)
    def wait_full(self):
        """Waits until the stage is filled."""
        self.barriers[unsafe_offset=Int(self.place.stage)].wait(
            self.place.phase
        )

    @inline(.always)
    def advance(mut self):
        """Goes on to the next stage, keeping this one until `release_last`."""
        self.place.advance()

    @inline(.always)
    def release_last(self):
        """Hands back the stage before this one."""
        var last = self.place.stage - 1
        if last < 0:
            last = self.place.stages - 1
        _ = self.barriers[unsafe_offset=MAX_STAGES + Int(last)].arrive()
