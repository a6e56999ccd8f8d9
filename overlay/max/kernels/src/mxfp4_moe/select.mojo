# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Selects each token's experts by the router's logits and weights them.

For few tokens one thread block does all that comes between the router's matmul
and the experts': selection, softmax, and the sort by expert. Each of these is
far shorter than a launch.
"""

from std.math import ceildiv, exp
from std.memory import bitcast, unsafe_stack_allocation
from std.utils import StaticTuple

from max.algorithm.functional import sync_parallelize
from max.gpu import WARP_SIZE, block_idx, lane_id, thread_idx, warp_id
from max.gpu.host import DeviceContext
from max.gpu.primitives import warp
from max.gpu.primitives.grid_controls import launch_dependent_grids
from max.gpu.sync import barrier

from .kernel_argument import KernelArgument, TensorPointer
from .routing import RoutingTables, route_cpu, route_gpu

comptime MAX_EXPERTS = 1 << 16
"""Experts whose numbers fit the half of a key that they have."""

comptime _THREADS = 512
comptime _WARPS = _THREADS // WARP_SIZE

comptime _FEW_SLOTS = 256
# What one thread block sorts, in shared memory.


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
        var shares = StaticTuple[Float32, top_k](fill=0)
        var total = Float32(0)
        comptime for choice in range(top_k):
            shares[choice] = exp(_key_logit(keys[choice]) - _key_logit(keys[0]))
            total += shares[choice]
        comptime for choice in range(top_k):
            choices[unsafe_offset=first + choice] = _key_expert(keys[choice])
            self.weights[unsafe_offset=first + choice] = shares[choice] / total


@inline(.always)
def _key_expert(key: UInt32) -> Int32:
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
def _select_by_warp[
    top_k: Int
](scores: RouterScores, choices: TensorPointer[Int32], token: Int32):
    # Each round takes the largest key below the one before: keys differ.
    var keys = StaticTuple[UInt32, top_k](fill=0)
    var before = UInt32.MAX
    comptime for choice in range(top_k):
        var mine = UInt32(0)
        for expert in range(Int32(lane_id()), scores.experts, Int32(WARP_SIZE)):
            var key = scores.key(token, expert)
            if key < before:
                mine = max(mine, key)
        before = warp.max(mine)
        keys[choice] = before
    if lane_id() == 0:
        scores.store(choices, token, keys)


@__name(t"mxfp4_moe_select_top{top_k}")
def _select_kernel[
    top_k: Int
](scores: RouterScores, choices: TensorPointer[Int32]):
    launch_dependent_grids()
    var token = Int32(block_idx.x) * Int32(_WARPS) + Int32(warp_id())
    if token < scores.tokens:
        _select_by_warp[top_k](scores, choices, token)


@__name(t"mxfp4_moe_select_and_route_top{top_k}")
def _select_and_route_kernel[
    top_k: Int
](scores: RouterScores, tables: RoutingTables):
    launch_dependent_grids()
    for token in range(Int32(warp_id()), scores.tokens, Int32(_WARPS)):
        _select_by_warp[top_k](scores, tables.choices, token)
    var choices = unsafe_stack_allocation[
        _FEW_SLOTS, Int32, address_space=.SHARED
    ]()
    barrier()
    var slots = scores.tokens * Int32(top_k)
    var thread = Int32(thread_idx.x)
    if thread < slots:
        choices[unsafe_offset=Int(thread)] = tables.choices[
            unsafe_offset=Int(thread)
        ]
    barrier()
    # Where a slot goes: behind those of smaller experts, and earlier ones of
    # its own.
    if thread < slots:
        var mine = choices[unsafe_offset=Int(thread)]
        var place = Int32(0)
        for slot in range(slots):
            var other = choices[unsafe_offset=Int(slot)]
            if other < mine or (other == mine and slot < thread):
                place += 1
        tables.token_expert_order[unsafe_offset=Int(place)] = UInt32(thread)
    for expert in range(thread, scores.experts + 1, Int32(_THREADS)):
        var smaller = Int32(0)
        for slot in range(slots):
            if choices[unsafe_offset=Int(slot)] < expert:
                smaller += 1
        tables.expert_starts[unsafe_offset=Int(expert)] = UInt32(smaller)
        if expert < scores.experts:
            tables.expert_ids[unsafe_offset=Int(expert)] = expert


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
    if slots <= _FEW_SLOTS:
        ctx.enqueue_function[_select_and_route_kernel[top_k]](
            scores, tables, grid_dim=1, block_dim=_THREADS
        )
    else:
        ctx.enqueue_function[_select_kernel[top_k]](
            scores,
            tables.choices,
            grid_dim=ceildiv(Int(scores.tokens), _WARPS),
            block_dim=_THREADS,
        )
        route_gpu(tables, slots, Int(scores.experts), ctx)
