# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Times one gpt-oss MoE layer after the router's scores, on one GPU.

What is timed is everything from the chosen experts to the layer's output:
sorting by expert, gather + gate/up + bias + SwiGLU, down + bias + weight, and
the sum over choices. Routings are uniform and there are many, each with tokens
of its own, so that the weights do not sit in L2; launches are queued back to
back, and the figure is the median over repeats.

Prints one JSON object a line: experts, tokens, active experts, microseconds.
"""

from std.random import random_ui64, seed
from std.sys import argv, size_of
from std.time import perf_counter_ns

from max.gpu import global_idx
from max.gpu.host import DeviceBuffer, DeviceContext

from mxfp4_moe.combine import combine_gpu
from mxfp4_moe.dispatch import grouped_matmul
from mxfp4_moe.epilogue import BiasSwiGLU, BiasWeightScatter
from mxfp4_moe.kernel_argument import TensorPointer
from mxfp4_moe.problem import GatherRow, MatmulProblem, SameRow
from mxfp4_moe.routing import RoutingTables, route_gpu

comptime HIDDEN = 2880
comptime TOP_K = 4
comptime REPEATS = 11


def _noise_kernel(
    bytes: TensorPointer[UInt8], size: Int64, low: UInt32, span: UInt32
):
    var i = Int(global_idx.x)
    if i < Int(size):
        # A multiplicative hash: the time of a kernel depends on its data's
        # bits, so they must look like a checkpoint's.
        var x = UInt64(i) * 0x9E37_79B9_7F4A_7C15
        x ^= x >> 29
        x *= 0xBF58_476D_1CE4_E5B9
        bytes[unsafe_offset=i] = UInt8(low + UInt32(x >> 40) % span)


def noise[
    dtype: DType
](ctx: DeviceContext, size: Int, low: Int, span: Int) raises -> DeviceBuffer[
    dtype
]:
    """Makes a buffer of random bytes in `[low, low + span)`."""
    var buffer = ctx.enqueue_create_buffer[dtype](size)
    var bytes = size * size_of[dtype]()
    ctx.enqueue_function[_noise_kernel](
        pointer(buffer).unsafe_bitcast[UInt8](),
        Int64(bytes),
        UInt32(low),
        UInt32(span),
        grid_dim=(bytes + 255) // 256,
        block_dim=256,
    )
    return buffer^


def pointer[
    dtype: DType
](buffer: DeviceBuffer[dtype]) -> TensorPointer[Scalar[dtype]]:
    return (
        buffer.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


struct Stack(Movable):
    """Packed weights and biases of one projection."""

    var blocks: DeviceBuffer[.uint8]
    var scales: DeviceBuffer[.uint8]
    var bias: DeviceBuffer[.bfloat16]
    var experts: Int
    var features: Int
    var depth: Int

    def __init__(
        out self, ctx: DeviceContext, experts: Int, features: Int, depth: Int
    ) raises:
        var elements = experts * features * depth
        self.blocks = noise[.uint8](ctx, elements // 2, 0, 256)
        self.scales = noise[.uint8](ctx, elements // 32, 118, 5)
        # Bytes 0 to 62 make BF16 numbers of at most 2^-1.
        self.bias = noise[.bfloat16](ctx, experts * features, 0, 63)
        self.experts = experts
        self.features = features
        self.depth = depth

    def problem(
        self,
        activations: DeviceBuffer[.bfloat16],
        tables: RoutingTables,
        rows: Int,
    ) -> MatmulProblem:
        return MatmulProblem(
            pointer(activations),
            pointer(self.blocks),
            pointer(self.scales),
            tables.expert_starts,
            tables.expert_ids,
            rows=rows,
            experts=self.experts,
            features=self.features,
            depth=self.depth,
            groups=self.experts,
        )


def time_tokens(
    gate_up: Stack, down: Stack, tokens: Int, ctx: DeviceContext
) raises:
    var experts = gate_up.experts
    var rows = tokens * TOP_K
    var routings = 16 if tokens <= 512 else 4
    var choices = ctx.enqueue_create_host_buffer[.int32](routings * rows)
    ctx.synchronize()
    var active = 0
    for routing in range(routings):
        var used = List[Bool](length=experts, fill=False)
        for token in range(tokens):
            for choice in range(TOP_K):
                var slot = routing * rows + token * TOP_K + choice
                var fresh = False
                while not fresh:
                    choices[slot] = Int32(random_ui64(0, UInt64(experts - 1)))
                    fresh = True
                    for earlier in range(choice):
                        if choices[slot - 1 - earlier] == choices[slot]:
                            fresh = False
                used[Int(choices[slot])] = True
        for expert in range(experts):
            active += Int(used[expert])

    var choices_device = ctx.enqueue_create_buffer[.int32](routings * rows)
    choices_device.enqueue_copy_from(choices)
    var hidden = noise[.bfloat16](ctx, routings * tokens * HIDDEN, 0, 63)
    var weights = noise[.float32](ctx, rows, 0, 63)
    var order = ctx.enqueue_create_buffer[.uint32](rows)
    var starts = ctx.enqueue_create_buffer[.uint32](experts + 1)
    var ids = ctx.enqueue_create_buffer[.int32](experts)
    var gated = ctx.enqueue_create_buffer[.bfloat16](rows * HIDDEN)
    var weighted = ctx.enqueue_create_buffer[.float32](rows * HIDDEN)
    var output = ctx.enqueue_create_buffer[.bfloat16](tokens * HIDDEN)

    def layers() raises {imm}:
        for routing in range(routings):
            var tables = RoutingTables(
                pointer(order),
                pointer(starts),
                pointer(ids),
                pointer(choices_device).unsafe_offset(routing * rows),
            )
            route_gpu(tables, rows, experts, ctx)
            var problem = gate_up.problem(hidden, tables, rows)
            problem.activations = problem.activations.unsafe_offset(
                routing * tokens * HIDDEN
            )
            grouped_matmul["gpu"](
                problem,
                GatherRow[TOP_K](pointer(order)),
                BiasSwiGLU[1.702, 7.0](
                    pointer(gated), pointer(gate_up.bias), Int32(2 * HIDDEN)
                ),
                ctx,
            )
            grouped_matmul["gpu"](
                down.problem(gated, tables, rows),
                SameRow(),
                BiasWeightScatter(
                    pointer(weighted),
                    pointer(down.bias),
                    pointer(weights),
                    pointer(order),
                    Int32(HIDDEN),
                ),
                ctx,
            )
            combine_gpu[TOP_K](
                pointer(output), pointer(weighted), tokens, HIDDEN, ctx
            )

    layers()
    ctx.synchronize()
    var times = List[Float64]()
    for _ in range(REPEATS):
        var start = perf_counter_ns()
        layers()
        ctx.synchronize()
        times.append(
            Float64(perf_counter_ns() - start) / 1000 / Float64(routings)
        )
    sort(times)
    print(
        t'{{"experts": {experts}, "tokens": {tokens}, "active_experts":'
        t' {Float64(active) / Float64(routings)}, "ours_us":'
        t" {times[REPEATS // 2]}}}"
    )
    _ = choices_device^
    _ = hidden^
    _ = weights^
    _ = order^
    _ = starts^
    _ = ids^
    _ = gated^
    _ = weighted^
    _ = output^


def main() raises:
    seed(Int(perf_counter_ns() % 1_000_000_007))
    var experts = Int(argv()[1]) if len(argv()) > 1 else 128
    with DeviceContext() as ctx:
        var gate_up = Stack(ctx, experts, 2 * HIDDEN, HIDDEN)
        var down = Stack(ctx, experts, HIDDEN, HIDDEN)
        for power in range(14):
            time_tokens(gate_up, down, 1 << power, ctx)
        _ = gate_up^
        _ = down^
