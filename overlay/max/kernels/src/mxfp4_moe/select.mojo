# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Selects each token's experts by the router's logits and weights them.

For few tokens one thread block does all that comes between the router's matmul
and the experts': selection, softmax, and the sort by expert. Each of these is
far shorter than a launch.
"""

from std.bit import pop_count
from std.math import ceildiv, exp
from std.memory import bitcast, unsafe_stack_allocation
from std.utils import StaticTuple

from max.algorithm.functional import sync_parallelize
from max.gpu import WARP_SIZE, block_idx, lane_id, thread_idx, warp_id
from max.gpu.host import DeviceContext
from max.gpu.primitives import warp
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier

from .kernel_argument import KernelArgument, TensorPointer
from .routing import RoutingTables, route_cpu, route_gpu
from .warp_lanes import lanes_with, warp_max

comptime MAX_EXPERTS = 1 << 16
"""Experts whose numbers fit the half of a key that they have."""

comptime _THREADS = 512
comptime _WARPS = _THREADS // WARP_SIZE

comptime _FEW_SLOTS = 256
comptime _FEW_EXPERTS = 256
# What one thread block sorts, in shared memory.

comptime _SLOT_WARPS = _FEW_SLOTS // WARP_SIZE
comptime _EXPERT_WARPS = _FEW_EXPERTS // WARP_SIZE

comptime _LANE_KEYS = 4
# Keys that a lane keeps: those of 128 experts a warp.


@fieldwise_init
struct RouterScores(KernelArgument):
    """The router's logits, and what the selected experts weigh."""

    comptime NAME = StaticString("scores")
    """The word for these."""

    var weights: TensorPointer[Float32]
    """Float32 `[tokens, top_k]`, in the order of the choices."""
    var logits: TensorPointer[BFloat16]
    """BF16 `[tokens, experts]`."""
    var tokens: Int32
    """Tokens."""
    var experts: Int32
    """Experts."""

    @inline(.always)
    def key(self, token: Int32, expert: Int32) -> UInt32:
        """Makes the number that orders a token's experts.

        Args:
            token: The token.
            expert: The expert.

        Returns:
            A number that is larger for a larger logit, and of equal logits for
            the smaller expert. A NaN is the largest, or if negative the
            smallest, so that even then the selected experts exist.
        """
        var bits = UInt32(
            bitcast[.uint16](
                self.logits[unsafe_offset=Int(token * self.experts + expert)]
            )
        )
        var ascending = bits ^ 0xFFFF if bits & 0x8000 else bits | 0x8000
        return ascending << 16 | (UInt32(MAX_EXPERTS - 1) - UInt32(expert))

    @inline(.always)
    def store[
        top_k: Int
    ](
        self,
        choices: TensorPointer[Int32],
        token: Int32,
        keys: StaticTuple[UInt32, top_k],
    ):
        """Stores a token's experts and their weights.

        Parameters:
            top_k: Experts a token.

        Args:
            choices: `[tokens, top_k]`.
            token: The token.
            keys: The experts' keys, the largest first.
        """
        var first = Int(token) * top_k
        var weights = key_weights(keys)
        comptime for choice in range(top_k):
            choices[unsafe_offset=first + choice] = key_expert(keys[choice])
            self.weights[unsafe_offset=first + choice] = weights[choice]


@inline(.always)
def key_weights[
    top_k: Int, //
](keys: StaticTuple[UInt32, top_k]) -> StaticTuple[Float32, top_k]:
    """Weighs a token's experts.

    Parameters:
        top_k: Experts a token.

    Args:
        keys: The experts' keys, the largest first.

    Returns:
        The softmax over their logits.
    """
    var weights = StaticTuple[Float32, top_k](fill=0)
    var total = Float32(0)
    comptime for choice in range(top_k):
        weights[choice] = exp(_key_logit(keys[choice]) - _key_logit(keys[0]))
        total += weights[choice]
    comptime for choice in range(top_k):
        weights[choice] = weights[choice] / total
    return weights


@inline(.always)
def key_expert(key: UInt32) -> Int32:
    """Reads a key's expert.

    Args:
        key: The key.

    Returns:
        The expert.
    """
    return Int32(MAX_EXPERTS - 1) - Int32(key & UInt32(MAX_EXPERTS - 1))


@inline(.always)
def _key_logit(key: UInt32) -> Float32:
    var ascending = key >> 16
    var bits = ascending ^ 0x8000 if ascending & 0x8000 else ascending ^ 0xFFFF
    # BF16 is the upper half of float32.
    return bitcast[.float32](bits << 16)


def select_cpu[top_k: Int](scores: RouterScores, tables: RoutingTables) raises:
    """Selects, weights and sorts on the CPU.

    Parameters:
        top_k: Experts a token.

    Args:
        scores: The logits, and room for weights.
        tables: The tables to fill, with room for the choices.

    Raises:
        Error: If the work cannot be shared out to threads.
    """

    def token_choices(token: Int) {imm}:
        var keys = StaticTuple[UInt32, top_k](fill=0)
        for expert in range(Int(scores.experts)):
            # Into its place among the largest so far.
            var key = scores.key(Int32(token), Int32(expert))
            comptime for choice in range(top_k):
                var smaller = min(keys[choice], key)
                keys[choice] = max(keys[choice], key)
                key = smaller
        scores.store(tables.choices, Int32(token), keys)

    sync_parallelize(token_choices, Int(scores.tokens))
    route_cpu(tables, Int(scores.tokens) * top_k, Int(scores.experts))


@inline(.always)
def select_by_warp[
    top_k: Int
](scores: RouterScores, token: Int32) -> StaticTuple[UInt32, top_k]:
    """Finds a token's experts, with all lanes of a warp.

    Parameters:
        top_k: Experts a token.

    Args:
        scores: The logits.
        token: The token.

    Returns:
        The experts' keys, the largest first, the same in every lane.
    """
    # Each round takes the largest key below the one before: keys differ. The
    # first keys stay in registers; more experts than that are read each round.
    var first_keys = StaticTuple[UInt32, _LANE_KEYS](fill=0)
    comptime for i in range(_LANE_KEYS):
        var expert = Int32(lane_id()) + Int32(i * WARP_SIZE)
        if expert < scores.experts:
            first_keys[i] = scores.key(token, expert)
    var keys = StaticTuple[UInt32, top_k](fill=0)
    var before = UInt32.MAX
    comptime for choice in range(top_k):
        var mine = UInt32(0)
        comptime for i in range(_LANE_KEYS):
            if first_keys[i] < before:
                mine = max(mine, first_keys[i])
        for expert in range(
            Int32(lane_id()) + Int32(_LANE_KEYS * WARP_SIZE),
            scores.experts,
            Int32(WARP_SIZE),
        ):
            var key = scores.key(token, expert)
            if key < before:
                mine = max(mine, key)
        before = warp_max(mine)
        keys[choice] = before
    return keys


@__name(t"mxfp4_moe_select_top{top_k}")
def _select_kernel[
    top_k: Int
](scores: RouterScores, choices: TensorPointer[Int32]):
    wait_on_dependent_grids()
    launch_dependent_grids()
    var token = Int32(block_idx.x) * Int32(_WARPS) + Int32(warp_id())
    if token < scores.tokens:
        var keys = select_by_warp[top_k](scores, token)
        if lane_id() == 0:
            scores.store(choices, token, keys)


@__name(t"mxfp4_moe_select_and_route_top{top_k}")
def _select_and_route_kernel[
    top_k: Int
](scores: RouterScores, tables: RoutingTables):
    # The expert of each slot.
    var choices = unsafe_stack_allocation[
        _FEW_SLOTS, UInt32, address_space=.SHARED
    ]()
    # For each expert, how many slots of each warp chose it; later, how many of
    # the warps before it.
    var counts = unsafe_stack_allocation[
        _SLOT_WARPS * _FEW_EXPERTS, Int32, address_space=.SHARED
    ]()
    # How many slots chose the experts of each warp.
    var totals = unsafe_stack_allocation[
        _EXPERT_WARPS, Int32, address_space=.SHARED
    ]()
    var thread = Int32(thread_idx.x)
    for i in range(Int(thread), _SLOT_WARPS * _FEW_EXPERTS, _THREADS):
        counts[unsafe_offset=i] = 0
    wait_on_dependent_grids()
    launch_dependent_grids()
    for token in range(Int32(warp_id()), scores.tokens, Int32(_WARPS)):
        var keys = select_by_warp[top_k](scores, token)
        if lane_id() == 0:
            scores.store(tables.choices, token, keys)
            comptime for choice in range(top_k):
                choices[unsafe_offset=Int(token) * top_k + choice] = UInt32(
                    key_expert(keys[choice])
                )
    barrier()

    # A stable sort by counting: a slot goes behind those of smaller experts,
    # of earlier warps and of earlier lanes.
    var slots = scores.tokens * Int32(top_k)
    var warp_counts = counts.unsafe_offset(Int(warp_id()) * _FEW_EXPERTS)
    var expert = UInt32.MAX
    var earlier_lanes = Int32(0)
    if thread < Int32(_FEW_SLOTS):
        if thread < slots:
            expert = choices[unsafe_offset=Int(thread)]
        var same = lanes_with(expert)
        earlier_lanes = Int32(
            pop_count(same & ((UInt32(1) << UInt32(lane_id())) - 1))
        )
        if thread < slots and earlier_lanes == 0:
            warp_counts[unsafe_offset=Int(expert)] = Int32(pop_count(same))
    barrier()

    var total = Int32(0)
    var through = Int32(0)
    if thread < Int32(_FEW_EXPERTS):
        comptime for slot_warp in range(_SLOT_WARPS):
            var at = slot_warp * _FEW_EXPERTS + Int(thread)
            var count = counts[unsafe_offset=at]
            counts[unsafe_offset=at] = total
            total += count
        through = warp.prefix_sum(total)
        if lane_id() == WARP_SIZE - 1:
            totals[unsafe_offset=Int(warp_id())] = through
    barrier()
    if thread < Int32(_FEW_EXPERTS):
        var start = through - total
        comptime for expert_warp in range(_EXPERT_WARPS):
            if expert_warp < Int(warp_id()):
                start += totals[unsafe_offset=expert_warp]
        comptime for slot_warp in range(_SLOT_WARPS):
            counts[
                unsafe_offset=slot_warp * _FEW_EXPERTS + Int(thread)
            ] += start
        if thread < scores.experts:
            tables.expert_starts[unsafe_offset=Int(thread)] = UInt32(start)
            tables.expert_ids[unsafe_offset=Int(thread)] = thread
    if thread == 0:
        tables.expert_starts[unsafe_offset=Int(scores.experts)] = UInt32(slots)
    barrier()
    if thread < slots:
        var place = warp_counts[unsafe_offset=Int(expert)] + earlier_lanes
        tables.token_expert_order[unsafe_offset=Int(place)] = UInt32(thread)


def select_gpu[
    top_k: Int
](scores: RouterScores, tables: RoutingTables, ctx: DeviceContext) raises:
    """Enqueues the same on a GPU, in one launch for few tokens, else in two.

    Parameters:
        top_k: Experts a token.

    Args:
        scores: The logits, and room for weights, in device memory.
        tables: The tables to fill, with room for the choices.
        ctx: The device.

    Raises:
        Error: If a launch fails.
    """
    var slots = Int(scores.tokens) * top_k
    if slots <= _FEW_SLOTS and Int(scores.experts) <= _FEW_EXPERTS:
        ctx.enqueue_function[_select_and_route_kernel[top_k]](
            scores,
            tables,
            grid_dim=1,
            block_dim=_THREADS,
            attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
        )
    else:
        ctx.enqueue_function[_select_kernel[top_k]](
            scores,
            tables.choices,
            grid_dim=ceildiv(Int(scores.tokens), _WARPS),
            block_dim=_THREADS,
            attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
        )
        route_gpu(tables, slots, Int(scores.experts), ctx)
