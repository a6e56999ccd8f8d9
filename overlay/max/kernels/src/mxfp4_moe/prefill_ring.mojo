# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The stages between the copying thread and the multiplying warps, and the sets of
operands between the preparing warps and those."""

from layout.tma_async import SharedMemBarrier
from max.gpu import thread_idx
from max.gpu.memory import fence_mbarrier_init
from max.gpu.sync import barrier

from .bulk_copy import SharedPointer
from .prefill_layout import MAX_STAGES, SETS, PrefillShape
from .prefill_operands import OPERAND_THREADS

comptime _EMPTY = MAX_STAGES
comptime _SCALES = 2 * MAX_STAGES
comptime _READY = _SCALES + SETS
comptime _DONE = _READY + SETS


@inline(.always)
def make_barriers[
    shape: PrefillShape
](barriers: SharedPointer[SharedMemBarrier]):
    """Makes the barriers, together with all threads of the block.

    Parameters:
        shape: How the block works.

    Args:
        barriers: Room for `PrefillLayout.BARRIERS` barriers: for each stage,
            whether its bytes are there, then for each, whether every consumer is
            done; then for each set of operands, whether the scales are there,
            whether all are, and whether every consumer is done.
    """
    if thread_idx.x == 0:
        comptime for i in range(MAX_STAGES):
            barriers[unsafe_offset=i].init(1)
            barriers[unsafe_offset=_EMPTY + i].init(
                Int32(shape.consumer_threads())
            )
        comptime for i in range(SETS):
            barriers[unsafe_offset=_SCALES + i].init(1)
            barriers[unsafe_offset=_READY + i].init(Int32(OPERAND_THREADS))
            barriers[unsafe_offset=_DONE + i].init(
                Int32(shape.consumer_threads())
            )
        fence_mbarrier_init()
    barrier()


struct Ring(TrivialRegisterPassable):
    """One side's place in the ring."""

    var barriers: SharedPointer[SharedMemBarrier]
    """The barriers."""
    var stage: Int32
    """The stage of the next step."""
    var phase: UInt32
    """The parity that its barrier waits for."""
    var offset: Int32
    """Where it starts, from the first."""
    var stages: Int32
    """The stages there are."""
    var stage_bytes: Int32
    """From a stage to the next."""

    @inline(.always)
    def __init__(
        out self,
        barriers: SharedPointer[SharedMemBarrier],
        stages: Int32,
        stage_bytes: Int32,
        *,
        fills: Bool,
    ):
        """Begins with the first stage.

        Args:
            barriers: What `make_barriers` made.
            stages: The stages there are.
            stage_bytes: From a stage to the next.
            fills: Whether this is the side that copies: it finds all stages
                empty.
        """
        self.barriers = barriers
        self.stage = 0
        self.phase = UInt32(1) if fills else UInt32(0)
        self.offset = 0
        self.stages = stages
        self.stage_bytes = stage_bytes

    @inline(.always)
    def advance(mut self):
        """Goes on to the next stage."""
        self.stage += 1
        self.offset += self.stage_bytes
        if self.stage == self.stages:
            self.stage = 0
            self.offset = 0
            self.phase ^= 1

    @inline(.always)
    def full(self) -> SharedPointer[SharedMemBarrier]:
        """Returns what counts the stage's bytes.

        Returns:
            The barrier.
        """
        return self.barriers.unsafe_offset(Int(self.stage))

    @inline(.always)
    def wait_empty(self):
        """Waits until the stage may be filled."""
        self.barriers[unsafe_offset=_EMPTY + Int(self.stage)].wait(self.phase)

    @inline(.always)
    def wait_full(self):
        """Waits until the stage is filled."""
        self.full()[].wait(self.phase)

    @inline(.always)
    def release_last(self):
        """Hands back the stage before this one."""
        var last = self.stage - 1
        if last < 0:
            last = self.stages - 1
        _ = self.barriers[unsafe_offset=_EMPTY + Int(last)].arrive()


struct OperandSets(TrivialRegisterPassable):
    """One side's place among the sets of operands: one a tile, in turn."""

    var barriers: SharedPointer[SharedMemBarrier]
    """The barriers."""
    var set: Int32
    """The set of the tile."""
    var phase: UInt32
    """The parity of its uses before."""

    @inline(.always)
    def __init__(out self, barriers: SharedPointer[SharedMemBarrier]):
        """Begins with the first tile.

        Args:
            barriers: What `make_barriers` made.
        """
        self.barriers = barriers
        self.set = 0
        self.phase = 0

    @inline(.always)
    def advance(mut self):
        """Goes on to the next tile."""
        self.phase ^= UInt32(self.set)
        self.set ^= 1

    @inline(.always)
    def scales(self) -> SharedPointer[SharedMemBarrier]:
        """Returns what counts the bytes of the set's scales.

        Returns:
            The barrier.
        """
        return self.barriers.unsafe_offset(_SCALES + Int(self.set))

    @inline(.always)
    def wait_scales(self):
        """Waits until the scales are there."""
        self.scales()[].wait(self.phase)

    @inline(.always)
    def wait_free(self):
        """Waits until the set may be filled."""
        self.barriers[unsafe_offset=_DONE + Int(self.set)].wait(self.phase ^ 1)

    @inline(.always)
    def hand_over(self):
        """Says that this thread has filled its part."""
        _ = self.barriers[unsafe_offset=_READY + Int(self.set)].arrive()

    @inline(.always)
    def wait_ready(self):
        """Waits until the set is filled."""
        self.barriers[unsafe_offset=_READY + Int(self.set)].wait(self.phase)

    @inline(.always)
    def release(self):
        """Says that this thread is done with the set."""
        _ = self.barriers[unsafe_offset=_DONE + Int(self.set)].arrive()
