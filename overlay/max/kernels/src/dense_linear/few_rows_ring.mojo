# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The stages between the lane that copies and the warps that multiply.

A stage has a step's weights or activations, rows of 128 bytes as `wgmma` reads
them. The first weights are asked for before the kernel that makes the activations
has ended.
"""

from std.memory import Pointer
from std.utils.index import Index

from layout.tma_async import SharedMemBarrier
from max.gpu import WARP_SIZE
from max.gpu.host.nvidia.tma import TMADescriptor
from max.gpu.memory import (
    cp_async_bulk_tensor_shared_cluster_global,
    fence_mbarrier_init,
)
from max.gpu.primitives.grid_controls import launch_dependent_grids

from .cluster_memory import SharedPointer
from .few_rows_shape import (
    CONSUMER_THREADS,
    STEP_DEPTH,
    WEIGHT_BYTES,
    FewRowsShape,
)


@fieldwise_init
struct Place[stages: Int](TrivialRegisterPassable):
    """A place in a ring.

    Parameters:
        stages: The stages there are.
    """

    var stage: Int32
    """The stage of the next step."""
    var phase: UInt32
    """The parity that its barrier waits for."""

    @inline(.always)
    def advance(mut self):
        """Goes on to the next stage."""
        self.stage += 1
        if self.stage == Int32(Self.stages):
            self.stage = 0
            self.phase ^= 1


struct FewRowsRing[shape: FewRowsShape, depth: Int](TrivialRegisterPassable):
    """One side's view of the stages.

    Parameters:
        shape: How thread blocks share the layer out.
        depth: K.
    """

    comptime WEIGHT_STAGES = Self.shape.weight_stages(Self.depth)
    """Steps whose weights there is room for."""
    comptime ROW_STAGES = Self.shape.row_stages(Self.depth)
    """Steps whose activations there is room for."""

    var shared: SharedPointer[UInt8]
    """The first stage."""
    var barriers: SharedPointer[SharedMemBarrier]
    """For each stage of weights, whether they are there, then for each, whether
    every consumer is done; for each stage of activations, whether they are there;
    and one for the sums that other blocks send."""
    var steps: Int32
    """The steps of the block."""
    var weights: Place[Self.WEIGHT_STAGES]
    """The stage of the next step's weights."""
    var rows: Place[Self.ROW_STAGES]
    """The stage of the next step's activations."""

    @inline(.always)
    def __init__(out self, shared: SharedPointer[UInt8], steps: Int32):
        """Begins with the first step.

        Args:
            shared: The block's shared memory.
            steps: The steps of the block.
        """
        self.shared = shared
        self.barriers = shared.unsafe_offset(
            Self.shape.barriers(Self.depth)
        ).unsafe_bitcast[SharedMemBarrier]()
        self.steps = steps
        self.weights = Place[Self.WEIGHT_STAGES](0, 0)
        self.rows = Place[Self.ROW_STAGES](0, 0)

    @inline(.always)
    def prepare(self):
        """Makes the barriers, with one thread."""
        comptime for i in range(Self.WEIGHT_STAGES):
            self._full(Int32(i))[].init(1)
            self._empty(Int32(i))[].init(Int32(CONSUMER_THREADS // WARP_SIZE))
        comptime for i in range(Self.ROW_STAGES):
            self._rows_full(Int32(i))[].init(1)
        self.sums_there()[].init(1)
        fence_mbarrier_init()

    @inline(.always)
    def sums_there(self) -> SharedPointer[SharedMemBarrier]:
        """Returns the barrier of the sums.

        Returns:
            The barrier.
        """
        return self._rows_full(Int32(Self.ROW_STAGES))

    @inline(.always)
    def wait_full(self):
        """Waits until the step is there, and so the kernel before has ended."""
        self._full(self.weights.stage)[].wait(self.weights.phase)
        self._rows_full(self.rows.stage)[].wait(self.rows.phase)

    @inline(.always)
    def advance(mut self):
        """Goes on to the next step, keeping this one's stages until
        `release_last`."""
        self.weights.advance()
        self.rows.advance()

    @inline(.always)
    def release_last(self):
        """Hands back the stages before these, with one lane of each warp."""
        var last = self.weights.stage - 1
        if last < 0:
            last = Int32(Self.WEIGHT_STAGES - 1)
        _ = self._empty(last)[].arrive()

    @inline(.always)
    def copy_first_weights(
        self, weights: TMADescriptor, first_feature: Int32, first_step: Int32
    ):
        """Starts the copies that need no other kernel's results.

        Args:
            weights: Maps the layer's weights.
            first_feature: The first feature of the tile.
            first_step: The first step of the slice.
        """
        comptime for i in range(Self.WEIGHT_STAGES):
            if Int32(i) < self.steps:
                self._copy_weights(
                    weights, Int32(i), first_feature, first_step + Int32(i)
                )

    @inline(.always)
    def copy_rest(
        mut self,
        weights: TMADescriptor,
        activations: TMADescriptor,
        first_feature: Int32,
        first_step: Int32,
    ):
        """Copies everything else.

        Args:
            weights: Maps the layer's weights.
            activations: Maps the rows.
            first_feature: The first feature of the tile.
            first_step: The first step of the slice.
        """
        comptime for i in range(Self.ROW_STAGES):
            if Int32(i) < self.steps:
                self._copy_activations(
                    activations, Int32(i), first_step + Int32(i)
                )
        # The next kernel asks for weights as soon as its blocks are there, which
        # would delay these.
        if self.steps <= Int32(Self.WEIGHT_STAGES):
            launch_dependent_grids()
        # A step that is done leaves room for others, further on.
        for step in range(self.steps - Int32(Self.ROW_STAGES)):
            self._empty(self.weights.stage)[].wait(self.weights.phase)
            self._copy_activations(
                activations,
                self.rows.stage,
                first_step + step + Int32(Self.ROW_STAGES),
            )
            if step + Int32(Self.WEIGHT_STAGES) < self.steps:
                self._copy_weights(
                    weights,
                    self.weights.stage,
                    first_feature,
                    first_step + step + Int32(Self.WEIGHT_STAGES),
                )
                if step + Int32(Self.WEIGHT_STAGES + 1) == self.steps:
                    launch_dependent_grids()
            self.advance()

    @inline(.always)
    def _full(self, stage: Int32) -> SharedPointer[SharedMemBarrier]:
        return self.barriers.unsafe_offset(Int(stage))

    @inline(.always)
    def _empty(self, stage: Int32) -> SharedPointer[SharedMemBarrier]:
        return self.barriers.unsafe_offset(Self.WEIGHT_STAGES + Int(stage))

    @inline(.always)
    def _rows_full(self, stage: Int32) -> SharedPointer[SharedMemBarrier]:
        return self.barriers.unsafe_offset(2 * Self.WEIGHT_STAGES + Int(stage))

    @inline(.always)
    def _copy_weights(
        self,
        weights: TMADescriptor,
        stage: Int32,
        first_feature: Int32,
        step: Int32,
    ):
        var full = self._full(stage)
        full[].expect_bytes(Int32(WEIGHT_BYTES))
        cp_async_bulk_tensor_shared_cluster_global(
            self.shared.unsafe_offset(Int(stage) * WEIGHT_BYTES),
            Pointer(to=weights).unsafe_bitcast[NoneType](),
            full,
            Index(Int(step) * STEP_DEPTH, Int(first_feature)),
        )

    @inline(.always)
    def _copy_activations(
        self, activations: TMADescriptor, stage: Int32, step: Int32
    ):
        var full = self._rows_full(stage)
        full[].expect_bytes(Int32(Self.shape.row_bytes()))
        cp_async_bulk_tensor_shared_cluster_global(
            self.shared.unsafe_offset(
                Self.shape.first_rows(Self.depth)
                + Int(stage) * Self.shape.row_bytes()
            ),
            Pointer(to=activations).unsafe_bitcast[NoneType](),
            full,
            Index(Int(step) * STEP_DEPTH, 0),
        )
