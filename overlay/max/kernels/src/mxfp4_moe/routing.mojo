# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Sorts the router's choices by expert, so that an expert's rows lie together.

A stable counting sort: within an expert, slots keep their order, which makes
every later sum deterministic.
"""


from std.bit import pop_count
from std.memory import unsafe_stack_allocation

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


@__name("mxfp4_moe_route")
def _route_kernel(tables: RoutingTables, slots_arg: Int32, experts_arg: Int32):
    # One thread block an expert, and one for the end. Each counts the slots of
    # smaller experts, which is where its own rows start, and then appends its
    # slots in order, those of the first round with what it has read already. No
    # block waits for another.
    wait_on_dependent_grids()
    launch_dependent_grids()
    var slots = Int(slots_arg)
    var experts = Int(experts_arg)
    var expert = Int32(block_idx.x)
    var thread = Int(thread_idx.x)

    comptime warps = _THREADS // WARP_SIZE
    comptime assert warps == WARP_SIZE
    var warp_smaller = unsafe_stack_allocation[
        warps, UInt32, address_space=.SHARED
    ]()
    var warp_counts = unsafe_stack_allocation[
        warps, UInt32, address_space=.SHARED
    ]()
    var lane = Int(lane_id())
    var mine = False
    var smaller = UInt32(0)
    for slot in range(thread, slots, _THREADS):
        var choice = tables.choices[unsafe_offset=slot]
        smaller += UInt32(choice < expert)
        if slot == thread:
            mine = choice == expert
    var ballot = warp.vote[.uint32](mine)
    smaller = warp_sum(smaller)
    if lane == 0:
        warp_smaller[unsafe_offset=Int(warp_id())] = smaller
        warp_counts[unsafe_offset=Int(warp_id())] = pop_count(ballot)
    barrier()
    # A lane for each warp.
    var next = warp_sum(warp_smaller[unsafe_offset=lane])
    if thread == 0:
        tables.expert_starts[unsafe_offset=Int(expert)] = next
        if Int(expert) < experts:
            tables.expert_ids[unsafe_offset=Int(expert)] = expert
    if Int(expert) == experts:
        return

    for base in range(0, slots, _THREADS):
        var slot = base + thread
        if base > 0:
            mine = slot < slots and tables.choices[unsafe_offset=slot] == expert
            ballot = warp.vote[.uint32](mine)
            if lane == 0:
                warp_counts[unsafe_offset=Int(warp_id())] = pop_count(ballot)
            barrier()
        var count = warp_counts[unsafe_offset=lane]
        var before = next + warp_sum(
            count if lane < Int(warp_id()) else UInt32(0)
        )
        next += warp_sum(count)
        if mine:
            var lower_lanes = (UInt32(1) << UInt32(lane_id())) - 1
            tables.token_expert_order[
                unsafe_offset=Int(before + pop_count(ballot & lower_lanes))
            ] = UInt32(slot)
        barrier()


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
    ctx.enqueue_function[_route_kernel](
        tables,
        Int32(slots),
        Int32(experts),
        grid_dim=experts + 1,
        block_dim=_THREADS,
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
