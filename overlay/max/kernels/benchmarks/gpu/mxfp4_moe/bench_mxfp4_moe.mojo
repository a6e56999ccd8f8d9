# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One MoE layer over packed MXFP4 experts, from the router's choices on.

A layer is the sort by expert, gather + gate/up + bias + SwiGLU, down + bias +
weight, and the sum over choices. Hidden size and expert width are the same, as
in gpt-oss. Routings are uniform, and change from one iteration to the next, so
that the experts of a small batch do not stay in L2.
"""

from std.math import ceildiv
from std.random import random_ui64, seed
from std.sys import get_defined_int, size_of

from internal_utils import arg_parse
from max.benchmark import bencher_iter_custom
from max.gpu import global_idx
from max.gpu.host import DeviceBuffer, DeviceContext
from std.benchmark import (
    Bench,
    Bencher,
    BenchId,
    BenchMetric,
    ThroughputMeasure,
)

from mxfp4_moe.combine import combine_gpu
from mxfp4_moe.dispatch import grouped_matmul
from mxfp4_moe.epilogue import BiasSwiGLU, BiasWeightScatter
from mxfp4_moe.kernel_argument import TensorPointer
from mxfp4_moe.problem import GatherRow, MatmulProblem, SameRow
from mxfp4_moe.routing import RoutingTables, route_gpu

comptime ROUTINGS = 16
comptime THREADS = 256


def pointer[
    dtype: DType
](buffer: DeviceBuffer[dtype]) -> TensorPointer[Scalar[dtype]]:
    return (
        buffer.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


def fill_kernel(
    bytes: TensorPointer[UInt8], size: Int64, low: UInt32, span: UInt32
):
    """Fills a buffer with hashed bytes from `low` to below `low + span`."""
    var i = Int(global_idx.x)
    if i < Int(size):
        var x = UInt64(i) * 0xD6E8_FEB8_6659_FD93
        x ^= x >> 32
        x *= 0xD6E8_FEB8_6659_FD93
        bytes[unsafe_offset=i] = UInt8(low + UInt32(x >> 40) % span)


def hashed[
    dtype: DType
](ctx: DeviceContext, size: Int, low: Int, span: Int) raises -> DeviceBuffer[
    dtype
]:
    var buffer = ctx.enqueue_create_buffer[dtype](size)
    var bytes = size * size_of[dtype]()
    ctx.enqueue_function[fill_kernel](
        pointer(buffer).unsafe_bitcast[UInt8](),
        Int64(bytes),
        UInt32(low),
        UInt32(span),
        grid_dim=ceildiv(bytes, THREADS),
        block_dim=THREADS,
    )
    return buffer^


def draw_choices(experts: Int, top_k: Int, rows: Int) raises -> List[Int32]:
    """Draws distinct experts for each token, `[ROUTINGS, rows]`."""
    var choices = List[Int32](capacity=ROUTINGS * rows)
    for _ in range(ROUTINGS * rows // top_k):
        var first = len(choices)
        while len(choices) < first + top_k:
            var expert = Int32(random_ui64(0, UInt64(experts - 1)))
            if expert not in choices[first:]:
                choices.append(expert)
    return choices^


def active_experts(choices: List[Int32], experts: Int) -> Int:
    """Counts the experts that get a token, over all routings."""
    var rows = len(choices) // ROUTINGS
    var active = 0
    for routing in range(ROUTINGS):
        var used = List[Bool](length=experts, fill=False)
        for i in range(routing * rows, (routing + 1) * rows):
            used[Int(choices[i])] = True
        for expert in range(experts):
            active += Int(used[expert])
    return active


def bench_layer[
    top_k: Int
](
    ctx: DeviceContext,
    mut bench: Bench,
    *,
    tokens: Int,
    experts: Int,
    hidden: Int,
) raises:
    var rows = tokens * top_k
    var gate_up_blocks = hashed[.uint8](ctx, experts * hidden * hidden, 0, 256)
    var gate_up_scales = hashed[.uint8](
        ctx, experts * hidden * hidden // 16, 118, 5
    )
    # Bytes 0 to 62 make BF16 and float32 numbers of at most 2^-1.
    var gate_up_bias = hashed[.bfloat16](ctx, experts * 2 * hidden, 0, 63)
    var down_blocks = hashed[.uint8](
        ctx, experts * hidden * hidden // 2, 0, 256
    )
    var down_scales = hashed[.uint8](
        ctx, experts * hidden * hidden // 32, 118, 5
    )
    var down_bias = hashed[.bfloat16](ctx, experts * hidden, 0, 63)
    var x = hashed[.bfloat16](ctx, tokens * hidden, 0, 63)
    var weights = hashed[.float32](ctx, rows, 0, 63)

    var drawn = draw_choices(experts, top_k, rows)
    var choices = ctx.enqueue_create_buffer[.int32](len(drawn))
    ctx.enqueue_copy(choices, drawn)
    var order = ctx.enqueue_create_buffer[.uint32](rows)
    var starts = ctx.enqueue_create_buffer[.uint32](experts + 1)
    var ids = ctx.enqueue_create_buffer[.int32](experts)
    var gated = ctx.enqueue_create_buffer[.bfloat16](rows * hidden)
    var weighted = ctx.enqueue_create_buffer[.bfloat16](rows * hidden)
    var output = ctx.enqueue_create_buffer[.bfloat16](tokens * hidden)

    @inline(.always)
    def bench_func(mut bencher: Bencher) raises {imm}:
        @inline(.always)
        def launch(ctx: DeviceContext, iteration: Int) raises {imm}:
            var tables = RoutingTables(
                pointer(order),
                pointer(starts),
                pointer(ids),
                pointer(choices).unsafe_offset(iteration % ROUTINGS * rows),
            )
            route_gpu(tables, rows, experts, ctx)
            grouped_matmul["gpu", in_panels=True](
                MatmulProblem(
                    pointer(x),
                    pointer(gate_up_blocks),
                    pointer(gate_up_scales),
                    tables.expert_starts,
                    tables.expert_ids,
                    rows=rows,
                    experts=experts,
                    features=2 * hidden,
                    depth=hidden,
                    groups=experts,
                ),
                GatherRow[top_k](tables.token_expert_order),
                BiasSwiGLU[1.702, 7.0](
                    pointer(gated), pointer(gate_up_bias), Int32(2 * hidden)
                ),
                ctx,
            )
            grouped_matmul["gpu", in_panels=True, tables_ready=True](
                MatmulProblem(
                    pointer(gated),
                    pointer(down_blocks),
                    pointer(down_scales),
                    tables.expert_starts,
                    tables.expert_ids,
                    rows=rows,
                    experts=experts,
                    features=hidden,
                    depth=hidden,
                    groups=experts,
                ),
                SameRow(),
                BiasWeightScatter(
                    pointer(weighted),
                    pointer(down_bias),
                    pointer(weights),
                    tables.token_expert_order,
                    Int32(hidden),
                ),
                ctx,
            )
            combine_gpu[top_k](
                pointer(output), pointer(weighted), tokens, hidden, ctx
            )

        bencher_iter_custom(bencher, launch, ctx)

    # Half a byte an element and a byte of scale for every 32.
    var expert_bytes = 3 * hidden * hidden * 17 // 32
    bench.bench_function(
        bench_func,
        BenchId(
            "mxfp4_moe_layer",
            input_id=String(t"{tokens}tok/{experts}exp/{top_k}/{hidden}"),
        ),
        [
            ThroughputMeasure(
                BenchMetric.bytes,
                active_experts(drawn, experts) * expert_bytes // ROUTINGS,
            ),
            ThroughputMeasure(BenchMetric.flops, 6 * rows * hidden * hidden),
        ],
    )
    ctx.synchronize()


def main() raises:
    comptime top_k = get_defined_int["top_k", 4]()
    var tokens = arg_parse("tokens", 1)
    var experts = arg_parse("experts", 128)
    var hidden = arg_parse("hidden", 2880)
    seed(0)
    var bench = Bench()
    with DeviceContext() as ctx:
        bench_layer[top_k](
            ctx, bench, tokens=tokens, experts=experts, hidden=hidden
        )
    bench.dump_report()
