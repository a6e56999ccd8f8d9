# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Sorts the router's choices by expert, so that an expert's rows lie together.

A stable counting sort: within an expert, slots keep their order, which makes
every later sum deterministic.
"""

from std.bit import pop_count
from std.memory import unsafe_stack_allocation
from std.utils import StaticTuple

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
from .warp_lanes import warp_sum

comptime _THREADS = 1024

comptime _WARPS = _THREADS // WARP_SIZE


@fieldwise_init
struct RoutingTables(KernelArgument):
    """The router's choices and the tables made from them."""

    comptime NAME = StaticString("routing")
    """The word for these tables."""

    var token_expert_order: TensorPointer[UInt32]
    """The slot of each routed row: `[slots]`."""
    var expert_starts: TensorPointer[UInt32]
    """The first routed row of each expert, and the end: `[experts + 1]`."""
    var expert_ids: TensorPointer[Int32]
    """The expert of each group: `[experts]`, 0, 1, 2, ...."""
    var choices: TensorPointer[Int32]
    """The expert that each slot `token * top_k + choice` chose: `[slots]`."""


def route_cpu(tables: RoutingTables, slots: Int, experts: Int) raises:
    """Sorts slots by expert on the CPU.

    Args:
        tables: The choices and the tables to fill.
        slots: Tokens times choices a token.
        experts: Experts to sort by.

    Raises:
        Error: If a choice names an expert that does not exist.
    """
    for expert in range(experts + 1):
        tables.expert_starts[unsafe_offset=expert] = 0
    for slot in range(slots):
        var expert = Int(tables.choices[unsafe_offset=slot])
        if expert < 0 or expert >= experts:
            raise Error(
                t"mxfp4_moe_route: topk_ids holds expert {expert} at slot"
                t" {slot}, but there are experts 0 to {experts - 1}."
            )
        tables.expert_starts[unsafe_offset=expert + 1] += 1
    var next = List[Int](length=experts, fill=0)
    for expert in range(experts):
        next[expert] = Int(tables.expert_starts[unsafe_offset=expert])
        tables.expert_starts[unsafe_offset=expert + 1] += tables.expert_starts[
            unsafe_offset=expert
        ]
        tables.expert_ids[unsafe_offset=expert] = Int32(expert)
    for slot in range(slots):
        var expert = Int(tables.choices[unsafe_offset=slot])
        tables.token_expert_order[unsafe_offset=next[expert]] = UInt32(slot)
        next[expert] += 1


@__name(t"mxfp4_moe_route_{rounds}")
def _route_kernel[
    rounds: Int
](tables: RoutingTables, slots_arg: Int32, experts_arg: Int32):
    # One thread block an expert, and one for the end. Each counts the slots of
    # smaller experts, which is where its own rows start, and then appends its
    # slots in order. No block waits for another. Choices are read `rounds` a
    # thread at a time, and counted together; the first ones are read once.
    wait_on_dependent_grids()
    launch_dependent_grids()
    comptime assert _WARPS == WARP_SIZE
    comptime batch_slots = rounds * _THREADS
    var slots = Int(slots_arg)
    var experts = Int(experts_arg)
    var expert = Int32(block_idx.x)
    var thread = Int(thread_idx.x)
    var own = Int(warp_id())
    var lane = Int(lane_id())
    var warp_smaller = unsafe_stack_allocation[
        _WARPS, UInt32, address_space=.SHARED
    ]()
    var counts = unsafe_stack_allocation[
        rounds * _WARPS, UInt32, address_space=.SHARED
    ]()

    var choices = _read_choices[rounds](tables, thread, slots)
    var smaller = _count_smaller(choices, expert)
    for base in range(batch_slots, slots, batch_slots):
        smaller += _count_smaller(
            _read_choices[rounds](tables, base + thread, slots), expert
        )
    smaller = warp_sum(smaller)
    if lane == 0:
        warp_smaller[unsafe_offset=own] = smaller

    var next = UInt32(0)
    for base in range(0, max(slots, 1), batch_slots):
        if base > 0:
            # All warps have read the counts.
            barrier()
            choices = _read_choices[rounds](tables, base + thread, slots)
        var ballots = StaticTuple[UInt32, rounds]()
        comptime for round in range(rounds):
            ballots[round] = warp.vote[.uint32](choices[round] == expert)
            if lane == 0:
                counts[unsafe_offset=round * _WARPS + own] = pop_count(
                    ballots[round]
                )
        barrier()
        if base == 0:
            # A lane for each warp, here and below.
            next = warp_sum(warp_smaller[unsafe_offset=lane])
            if thread == 0:
                tables.expert_starts[unsafe_offset=Int(expert)] = next
                if Int(expert) < experts:
                    tables.expert_ids[unsafe_offset=Int(expert)] = expert
        var lane_bit = UInt32(1) << UInt32(lane)
        comptime for round in range(rounds):
            var count = counts[unsafe_offset=round * _WARPS + lane]
            var before = warp_sum(count if lane < own else UInt32(0))
            if ballots[round] & lane_bit != 0:
                tables.token_expert_order[
                    unsafe_offset=Int(
                        next
                        + before
                        + pop_count(ballots[round] & (lane_bit - 1))
                    )
                ] = UInt32(base + round * _THREADS + thread)
            next += warp_sum(count)


@inline(.always)
def _count_smaller[
    rounds: Int, //
](choices: StaticTuple[Int32, rounds], expert: Int32) -> UInt32:
    var smaller = UInt32(0)
    comptime for round in range(rounds):
        smaller += UInt32(choices[round] < expert)
    return smaller


@inline(.always)
def _read_choices[
    rounds: Int
](tables: RoutingTables, first: Int, slots: Int) -> StaticTuple[Int32, rounds]:
    # Slots that do not exist chose an expert that does not.
    var choices = StaticTuple[Int32, rounds](fill=Int32.MAX)
    comptime for round in range(rounds):
        if first + round * _THREADS < slots:
            choices[round] = tables.choices[
                unsafe_offset=first + round * _THREADS
            ]
    return choices


def route_gpu(
    tables: RoutingTables, slots: Int, experts: Int, ctx: DeviceContext
) raises:
    """Enqueues the sort on a GPU, in one launch.

    A choice outside the experts leaves a hole in the order, so callers pass
    what a top-k over exactly `experts` scores gave.

    Args:
        tables: The choices and the tables to fill, in device memory.
        slots: Tokens times choices a token.
        experts: Experts to sort by.
        ctx: The device.

    Raises:
        Error: If the launch fails.
    """
    if slots <= _THREADS:
        _launch[1](tables, slots, experts, ctx)
    elif slots <= 4 * _THREADS:
        _launch[4](tables, slots, experts, ctx)
    else:
        _launch[16](tables, slots, experts, ctx)


def _launch[
    rounds: Int
](tables: RoutingTables, slots: Int, experts: Int, ctx: DeviceContext) raises:
    ctx.enqueue_function[_route_kernel[rounds]](
        tables,
        Int32(slots),
        Int32(experts),
        grid_dim=experts + 1,
        block_dim=_THREADS,
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
