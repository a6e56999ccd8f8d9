# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Times one gpt-oss MoE layer after the router's scores, on one GPU.

    moe_layer [EXPERTS] [layer | matmul]

`layer` is everything from the chosen experts to the layer's output: sorting by
expert, gather + gate/up + bias + SwiGLU, down + bias + weight, and the sum over
choices. `matmul` is the plain op `mxfp4_moe_matmul` alone, with the gate/up
stack, on rows that are sorted by expert already.

Routings are uniform and there are many, each with tokens of its own, so that
the weights do not sit in L2; launches are queued back to back, and the figure
is the median over repeats.

Prints one JSON object a line: experts, tokens, active experts, microseconds.
"""

from std.sys import argv, size_of
from std.time import perf_counter_ns

from max.gpu import global_idx
from max.gpu.host import DeviceBuffer, DeviceContext

from mxfp4_moe.dispatch import grouped_matmul
from mxfp4_moe.epilogue import StoreBF16
from mxfp4_moe.kernel_argument import TensorPointer
from mxfp4_moe.layer import LayerBuffers, expert_layer
from mxfp4_moe.layer_problem import ExpertStack, LayerProblem, LayerTables
from mxfp4_moe.problem import MatmulProblem, SameRow
from mxfp4_moe.routing import RoutingTables, route_gpu
from mxfp4_moe.slice_sums import PART_ROWS
from mxfp4_moe.slices_sm90 import slices_fit

from routings import TOP_K, RoutingDraws, routing_count

comptime HIDDEN = 2880
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

    def operands(self) -> ExpertStack:
        return ExpertStack(
            pointer(self.blocks), pointer(self.scales), pointer(self.bias)
        )

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


struct Routings(Movable):
    """Every routing of one number of tokens, with room for its tables."""

    var count: Int
    var tokens: Int
    var experts: Int
    var active_experts: Float64
    """Experts that got a token, on average over the routings."""
    var choices: DeviceBuffer[.int32]
    var order: DeviceBuffer[.uint32]
    var starts: DeviceBuffer[.uint32]
    var ids: DeviceBuffer[.int32]

    def __init__(
        out self, ctx: DeviceContext, experts: Int, tokens: Int
    ) raises:
        var rows = tokens * TOP_K
        self.count = routing_count(tokens)
        self.tokens = tokens
        self.experts = experts
        var draws = RoutingDraws(experts, tokens)
        var choices = ctx.enqueue_create_host_buffer[.int32](self.count * rows)
        ctx.synchronize()
        var active = 0
        for routing in range(self.count):
            var used = List[Bool](length=experts, fill=False)
            for token in range(tokens):
                var chosen = List[Int]()
                for choice in range(TOP_K):
                    var expert = draws.next_choice(chosen)
                    choices[routing * rows + token * TOP_K + choice] = Int32(
                        expert
                    )
                    used[expert] = True
                    chosen.append(expert)
            for expert in range(experts):
                active += Int(used[expert])
        self.active_experts = Float64(active) / Float64(self.count)
        self.choices = ctx.enqueue_create_buffer[.int32](self.count * rows)
        self.choices.enqueue_copy_from(choices)
        self.order = ctx.enqueue_create_buffer[.uint32](self.count * rows)
        self.starts = ctx.enqueue_create_buffer[.uint32](
            self.count * (experts + 1)
        )
        self.ids = ctx.enqueue_create_buffer[.int32](self.count * experts)
        ctx.synchronize()

    def rows(self) -> Int:
        return self.tokens * TOP_K

    def tables(self, routing: Int) -> RoutingTables:
        var rows = self.rows()
        return RoutingTables(
            pointer(self.order).unsafe_offset(routing * rows),
            pointer(self.starts).unsafe_offset(routing * (self.experts + 1)),
            pointer(self.ids).unsafe_offset(routing * self.experts),
            pointer(self.choices).unsafe_offset(routing * rows),
        )

    def route(self, routing: Int, ctx: DeviceContext) raises:
        route_gpu(self.tables(routing), self.rows(), self.experts, ctx)

    def report(self, microseconds: Float64):
        print(
            t'{{"experts": {self.experts}, "tokens": {self.tokens},'
            t' "active_experts": {self.active_experts}, "us":'
            t" {microseconds / Float64(self.count)}}}"
        )


def median_us[
    Work: def() raises
](work: Work, ctx: DeviceContext) raises -> Float64:
    """Times queued work, after one untimed pass."""
    work()
    ctx.synchronize()
    var times = List[Float64]()
    for _ in range(REPEATS):
        var start = perf_counter_ns()
        work()
        ctx.synchronize()
        times.append(Float64(perf_counter_ns() - start) / 1000)
    sort(times)
    return times[REPEATS // 2]


def time_layer(
    gate_up: Stack, down: Stack, tokens: Int, ctx: DeviceContext
) raises:
    var routings = Routings(ctx, gate_up.experts, tokens)
    var rows = routings.rows()
    var hidden = noise[.bfloat16](ctx, routings.count * tokens * HIDDEN, 0, 63)
    var weights = noise[.float32](ctx, rows, 0, 63)
    var gated = ctx.enqueue_create_buffer[.bfloat16](rows * HIDDEN)
    var weighted = ctx.enqueue_create_buffer[.bfloat16](rows * HIDDEN)
    var sums = ctx.enqueue_create_buffer[.float32](PART_ROWS * HIDDEN)
    var output = ctx.enqueue_create_buffer[.bfloat16](tokens * HIDDEN)
    var buffers = LayerBuffers(
        pointer(gated),
        pointer(weighted),
        pointer(sums),
    )

    def layers() raises {imm}:
        for routing in range(routings.count):
            var tables = routings.tables(routing)
            var layer = LayerProblem(
                pointer(hidden).unsafe_offset(routing * tokens * HIDDEN),
                # The choices are given, as they are to the peers.
                pointer(hidden),
                LayerTables(
                    tables.token_expert_order,
                    tables.expert_starts,
                    tables.expert_ids,
                    tables.choices,
                    pointer(weights),
                ),
                gate_up.operands(),
                down.operands(),
                rows=rows,
                experts=gate_up.experts,
                groups=gate_up.experts,
                features=HIDDEN,
                width=HIDDEN,
            )
            # The kernels for few tokens sort by themselves.
            if not slices_fit(layer, tokens):
                routings.route(routing, ctx)
            expert_layer[
                "gpu", TOP_K, 1.702, 7.0, in_panels=True, from_logits=False
            ](pointer(output), buffers, layer, ctx)

    routings.report(median_us(layers, ctx))
    _ = routings^
    _ = hidden^
    _ = weights^
    _ = gated^
    _ = weighted^
    _ = sums^
    _ = output^


def time_matmul(gate_up: Stack, tokens: Int, ctx: DeviceContext) raises:
    var routings = Routings(ctx, gate_up.experts, tokens)
    var rows = routings.rows()
    var activations = noise[.bfloat16](
        ctx, routings.count * rows * HIDDEN, 0, 63
    )
    var output = ctx.enqueue_create_buffer[.bfloat16](rows * 2 * HIDDEN)
    for routing in range(routings.count):
        routings.route(routing, ctx)

    def matmuls() raises {imm}:
        for routing in range(routings.count):
            var problem = gate_up.problem(
                activations, routings.tables(routing), rows
            )
            problem.activations = problem.activations.unsafe_offset(
                routing * rows * HIDDEN
            )
            grouped_matmul["gpu", in_panels=True](
                problem,
                SameRow(),
                StoreBF16(pointer(output), problem.features),
                ctx,
            )

    routings.report(median_us(matmuls, ctx))
    _ = routings^
    _ = activations^
    _ = output^


def main() raises:
    var experts = Int(argv()[1]) if len(argv()) > 1 else 128
    var what = String(argv()[2]) if len(argv()) > 2 else "layer"
    if what != "layer" and what != "matmul":
        raise Error(t"{what} is neither layer nor matmul.")
    with DeviceContext() as ctx:
        var gate_up = Stack(ctx, experts, 2 * HIDDEN, HIDDEN)
        var down = Stack(ctx, experts, HIDDEN, HIDDEN)
        for power in range(14):
            if what == "layer":
                time_layer(gate_up, down, 1 << power, ctx)
            else:
                time_matmul(gate_up, 1 << power, ctx)
        _ = gate_up^
        _ = down^
