# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Whole expert layers for few tokens against the executable specification.

Every case draws fresh random weights, activations and routings, runs the CPU's three
steps and the GPU's layer kernel on the same bytes, and compares them. Outputs and
partial sums are poisoned first, so that what nobody wrote shows as NaN.
"""

from std.math import isnan
from std.memory import bitcast
from std.random import random_float64, random_ui64, seed
from std.testing import assert_equal, assert_true
from std.time import perf_counter_ns

from max.gpu.host import DeviceBuffer, DeviceContext

from mxfp4_moe.kernel_argument import TensorPointer
from mxfp4_moe.layer import LayerBuffers, expert_layer
from mxfp4_moe.layer_problem import ExpertStack, LayerProblem, LayerTables
from mxfp4_moe.panels import PanelStack, to_panels_gpu
from mxfp4_moe.slice_sums import PART_ROWS
from mxfp4_moe.slices_sm90 import slices_fit, slices_sm90

from random_tensors import (
    Tensor,
    compare,
    device_pointer,
    poison,
    random_bf16,
    random_byte,
    random_scale,
)

comptime ALPHA = Float32(1.702)
comptime LIMIT = Float32(7)


struct Stack(Movable):
    """One projection, in the checkpoint's order on the host, in panels on the GPU.
    """

    var blocks: Tensor[.uint8]
    var scales: Tensor[.uint8]
    var bias: Tensor[.bfloat16]
    var panel_blocks: DeviceBuffer[.uint8]
    var panel_scales: DeviceBuffer[.uint8]

    def __init__(
        out self,
        experts: Int,
        features: Int,
        depth: Int,
        scale: def() raises thin -> UInt8,
        ctx: DeviceContext,
    ) raises:
        var elements = experts * features * depth
        self.blocks = Tensor[.uint8](ctx, elements // 2)
        self.scales = Tensor[.uint8](ctx, elements // 32)
        self.bias = Tensor[.bfloat16](ctx, experts * features)
        self.blocks.fill(random_byte)
        for i in range(elements // 32):
            self.scales.host[i] = scale()
        self.scales.device.enqueue_copy_from(self.scales.host)
        self.bias.fill(random_bf16)
        self.panel_blocks = ctx.enqueue_create_buffer[.uint8](elements // 2)
        self.panel_scales = ctx.enqueue_create_buffer[.uint8](elements // 32)
        self.to_panels(experts * features, depth, ctx)

    def to_panels(self, rows: Int, depth: Int, ctx: DeviceContext) raises:
        to_panels_gpu(
            PanelStack(
                device_pointer(self.panel_blocks),
                device_pointer(self.panel_scales),
                self.blocks.on_device(),
                self.scales.on_device(),
                rows=rows,
                depth=depth,
            ),
            ctx,
        )
        ctx.synchronize()

    def on_host(self) -> ExpertStack:
        return ExpertStack(
            self.blocks.on_host(), self.scales.on_host(), self.bias.on_host()
        )

    def on_device(self) -> ExpertStack:
        return ExpertStack(
            device_pointer(self.panel_blocks),
            device_pointer(self.panel_scales),
            self.bias.on_device(),
        )


struct Case(Copyable, Movable):
    """Sizes, and the rows of each group."""

    var name: String
    var counts: List[Int]
    var ids: List[Int]
    var experts: Int
    var features: Int
    var width: Int
    var lead: Int
    """Rows before the first group."""
    var trail: Int
    """Rows after the last group."""
    var huge: Bool
    """Whether some scales are over 128."""

    def __init__(
        out self,
        name: String,
        var counts: List[Int],
        features: Int,
        width: Int,
        *,
        var ids: List[Int] = List[Int](),
        experts: Int = 0,
        lead: Int = 0,
        trail: Int = 0,
        huge: Bool = False,
    ):
        self.name = name
        self.experts = max(experts, len(counts))
        if len(ids) == 0:
            for group in range(len(counts)):
                ids.append(group)
        self.counts = counts^
        self.ids = ids^
        self.features = features
        self.width = width
        self.lead = lead
        self.trail = trail
        self.huge = huge

    def rows(self) -> Int:
        var total = self.lead + self.trail
        for count in self.counts:
            total += count
        return total


def any_scale() raises -> UInt8:
    # A few over 128, for small blocks' sake not many.
    if random_ui64(0, 99) == 0:
        return UInt8(random_ui64(129, 132))
    return random_scale()


def check[
    top_k: Int, *, from_logits: Bool = False
](of: Case, ctx: DeviceContext) raises:
    """With `from_logits`, random ones choose, and the case's groups do not count.
    """
    var rows = of.rows()
    assert_equal(rows % top_k, 0)
    var tokens = rows // top_k
    var scale = any_scale if of.huge else random_scale
    var gate_up = Stack(of.experts, 2 * of.width, of.features, scale, ctx)
    var down = Stack(of.experts, of.features, of.width, scale, ctx)
    var hidden = Tensor[.bfloat16](ctx, tokens * of.features)
    hidden.fill(random_bf16)
    var logits = Tensor[.bfloat16](ctx, tokens * of.experts)
    logits.fill(random_bf16)
    var starts = Tensor[.uint32](ctx, len(of.counts) + 1)
    var ids = Tensor[.int32](ctx, len(of.counts))
    var order = Tensor[.uint32](ctx, rows)
    var choices = Tensor[.int32](ctx, rows)
    var weights = Tensor[.float32](ctx, rows)

    def weight() raises -> Float32:
        return random_float64().cast[.float32]()

    weights.fill(weight)
    var first = of.lead
    for group in range(len(of.counts)):
        starts.host[group] = UInt32(first)
        ids.host[group] = Int32(of.ids[group])
        first += of.counts[group]
    starts.host[len(of.counts)] = UInt32(first)
    for row in range(rows):
        order.host[row] = UInt32(row)
    for row in range(rows - 1, 0, -1):
        var other = Int(random_ui64(0, UInt64(row)))
        var slot = order.host[row]
        order.host[row] = order.host[other]
        order.host[other] = slot
    # The same as each slot's expert.
    for row in range(rows):
        choices.host[row] = -1
    for group in range(len(of.counts)):
        for row in range(Int(starts.host[group]), Int(starts.host[group + 1])):
            choices.host[Int(order.host[row])] = ids.host[group]
    choices.device.enqueue_copy_from(choices.host)
    starts.device.enqueue_copy_from(starts.host)
    ids.device.enqueue_copy_from(ids.host)
    order.device.enqueue_copy_from(order.host)

    var gated = Tensor[.bfloat16](ctx, rows * of.width)
    var weighted = Tensor[.bfloat16](ctx, rows * of.features)
    var sums = Tensor[.float32](ctx, PART_ROWS * of.features)
    var expected = Tensor[.bfloat16](ctx, tokens * of.features)
    var actual = Tensor[.bfloat16](ctx, tokens * of.features)
    poison(sums, ctx)

    expert_layer[
        "cpu",
        top_k,
        ALPHA,
        LIMIT,
        in_panels=False,
        from_logits=from_logits,
    ](
        expected.on_host(),
        LayerBuffers(gated.on_host(), weighted.on_host(), sums.on_host()),
        LayerProblem(
            hidden.on_host(),
            logits.on_host(),
            LayerTables(
                order.on_host(),
                starts.on_host(),
                ids.on_host(),
                choices.on_host(),
                weights.on_host(),
            ),
            gate_up.on_host(),
            down.on_host(),
            rows=rows,
            experts=of.experts,
            groups=len(of.counts),
            features=of.features,
            width=of.width,
        ),
        ctx,
    )
    var layer = LayerProblem(
        hidden.on_device(),
        logits.on_device(),
        LayerTables(
            order.on_device(),
            starts.on_device(),
            ids.on_device(),
            choices.on_device(),
            weights.on_device(),
        ),
        gate_up.on_device(),
        down.on_device(),
        rows=rows,
        experts=of.experts,
        groups=len(of.counts),
        features=of.features,
        width=of.width,
    )
    assert_true(slices_fit(layer, tokens), of.name)
    for _ in range(2):
        poison(actual, ctx)
        slices_sm90[top_k, ALPHA, LIMIT, from_logits=from_logits](
            actual.on_device(), sums.on_device(), layer, ctx
        )
        # The specification rounds each expert's result to BF16, this does not.
        compare(of.name, expected, actual, tokens * of.features, 4e-3, ctx)
    _ = gate_up^
    _ = down^
    _ = hidden^
    _ = logits^
    _ = starts^
    _ = ids^
    _ = order^
    _ = choices^
    _ = weights^
    _ = gated^
    _ = weighted^
    _ = sums^


def check_every_value(first_scale: Int, ctx: DeviceContext) raises:
    """Every code times half of all scale bytes, bit for bit, through `down`.

    Feature `16 * scale + code` has one element of that code, at a position of its
    own, and zeros besides; what it meets is 3.5, in the two blocks that are all
    there is between the projections.
    """
    comptime features = 2048
    comptime width = 64
    var gate_up = Stack(1, 2 * width, features, random_scale, ctx)
    var down = Stack(1, features, width, random_scale, ctx)

    def zero_byte() raises -> UInt8:
        return 0

    gate_up.blocks.fill(zero_byte)
    gate_up.to_panels(2 * width, features, ctx)
    for i in range(width):
        # 7 times its sigmoid, nearly 7, times (1 - 0.5).
        gate_up.bias.host[2 * i] = 7
        gate_up.bias.host[2 * i + 1] = -0.5
    gate_up.bias.device.enqueue_copy_from(gate_up.bias.host)
    down.blocks.fill(zero_byte)
    for feature in range(features):
        var code = UInt8(feature % 16)
        var position = feature % 7 * 9
        down.blocks.host[feature * width // 2 + position // 2] = (
            code << 4 if position % 2 else code
        )
        # The block without the element has a scale of its own.
        for block in range(width // 32):
            down.scales.host[feature * width // 32 + block] = 127
        down.scales.host[feature * width // 32 + position // 32] = UInt8(
            first_scale + feature // 16
        )
        down.bias.host[feature] = 0
    down.blocks.device.enqueue_copy_from(down.blocks.host)
    down.scales.device.enqueue_copy_from(down.scales.host)
    down.bias.device.enqueue_copy_from(down.bias.host)
    down.to_panels(features, width, ctx)
    var hidden = Tensor[.bfloat16](ctx, features)
    hidden.fill(random_bf16)
    var starts = Tensor[.uint32](ctx, 2)
    starts.host[0] = 0
    starts.host[1] = 1
    var ids = Tensor[.int32](ctx, 1)
    var order = Tensor[.uint32](ctx, 1)
    var choices = Tensor[.int32](ctx, 1)
    var weights = Tensor[.float32](ctx, 1)
    ids.host[0] = 0
    order.host[0] = 0
    choices.host[0] = 0
    weights.host[0] = 1
    starts.device.enqueue_copy_from(starts.host)
    ids.device.enqueue_copy_from(ids.host)
    order.device.enqueue_copy_from(order.host)
    choices.device.enqueue_copy_from(choices.host)
    weights.device.enqueue_copy_from(weights.host)
    var sums = Tensor[.float32](ctx, PART_ROWS * features)
    var actual = Tensor[.bfloat16](ctx, features)
    poison(sums, ctx)
    poison(actual, ctx)
    slices_sm90[1, ALPHA, LIMIT, from_logits=False](
        actual.on_device(),
        sums.on_device(),
        LayerProblem(
            hidden.on_device(),
            hidden.on_device(),
            LayerTables(
                order.on_device(),
                starts.on_device(),
                ids.on_device(),
                choices.on_device(),
                weights.on_device(),
            ),
            gate_up.on_device(),
            down.on_device(),
            rows=1,
            experts=1,
            groups=1,
            features=features,
            width=width,
        ),
        ctx,
    )
    actual.device.enqueue_copy_to(actual.host)
    ctx.synchronize()
    for feature in range(features):
        var scale = first_scale + feature // 16
        var want = code_value(feature % 16) * 2.0 ** (scale - 127) * 3.5
        if abs(want) >= 2.0**128:
            want *= 2.0**1000
        var have = actual.host[feature].cast[.float64]()
        assert_true(
            Bool(isnan(have)) if scale == 255 else Bool(want == have),
            String(t"scale {scale}, code {feature % 16}: {have}, not {want}"),
        )
    print(t"  every code times 128 scales from {first_scale} on: exact")
    _ = hidden^
    _ = starts^
    _ = ids^
    _ = order^
    _ = choices^
    _ = weights^
    _ = gate_up^
    _ = down^
    _ = sums^


def code_value(code: Int) -> Float64:
    """E2M1, by the table of the OCP Microscaling specification."""
    comptime MAGNITUDES: List[Float64] = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    var magnitude = materialize[MAGNITUDES]()[code % 8]
    return -magnitude if code >= 8 else magnitude


def check_overlap(tokens: Int, experts: Int, ctx: DeviceContext) raises:
    """Layers whose launches overlap give the same bits as layers that wait.

    Each layer takes the one's output before it and other logits.
    """
    comptime layers = 24
    comptime width = 2880
    comptime top_k = 4
    var gate_up = Stack(experts, 2 * width, width, random_scale, ctx)
    var down = Stack(experts, width, width, random_scale, ctx)
    var hidden = Tensor[.bfloat16](ctx, tokens * width)
    var logits = Tensor[.bfloat16](ctx, layers * tokens * experts)
    hidden.fill(random_bf16)
    logits.fill(random_bf16)
    var starts = Tensor[.uint32](ctx, experts + 1)
    var ids = Tensor[.int32](ctx, experts)
    var order = Tensor[.uint32](ctx, tokens * top_k)
    var choices = Tensor[.int32](ctx, tokens * top_k)
    var weights = Tensor[.float32](ctx, tokens * top_k)
    var sums = Tensor[.float32](ctx, PART_ROWS * width)
    var expected = Tensor[.bfloat16](ctx, layers * tokens * width)
    var actual = Tensor[.bfloat16](ctx, layers * tokens * width)

    def run(outputs: Tensor[.bfloat16], waits: Bool) raises {imm}:
        for layer in range(layers):
            var activations = hidden.on_device()
            if layer > 0:
                activations = outputs.on_device().unsafe_offset(
                    (layer - 1) * tokens * width
                )
            slices_sm90[top_k, ALPHA, LIMIT, from_logits=True](
                outputs.on_device().unsafe_offset(layer * tokens * width),
                sums.on_device(),
                LayerProblem(
                    activations,
                    logits.on_device().unsafe_offset(layer * tokens * experts),
                    LayerTables(
                        order.on_device(),
                        starts.on_device(),
                        ids.on_device(),
                        choices.on_device(),
                        weights.on_device(),
                    ),
                    gate_up.on_device(),
                    down.on_device(),
                    rows=tokens * top_k,
                    experts=experts,
                    groups=experts,
                    features=width,
                    width=width,
                ),
                ctx,
            )
            if waits:
                ctx.synchronize()

    poison(sums, ctx)
    poison(expected, ctx)
    run(expected, True)
    expected.device.enqueue_copy_to(expected.host)
    for _ in range(4):
        poison(actual, ctx)
        run(actual, False)
        actual.device.enqueue_copy_to(actual.host)
        ctx.synchronize()
        for i in range(layers * tokens * width):
            assert_equal(
                bitcast[.uint16](actual.host[i]),
                bitcast[.uint16](expected.host[i]),
                "layers",
            )
    print(t"  {layers} layers of {tokens} tokens, {experts} experts: equal")
    _ = gate_up^
    _ = down^
    _ = hidden^
    _ = logits^
    _ = starts^
    _ = ids^
    _ = order^
    _ = choices^
    _ = weights^
    _ = sums^


def even(groups: Int, rows: Int) -> List[Int]:
    return List[Int](length=groups, fill=rows)


def main() raises:
    seed(Int(perf_counter_ns() % 1_000_000_007))
    with DeviceContext() as ctx:
        check[1](Case("one row, one slice", [1], 32, 32), ctx)
        check[1](Case("one expert", [0, 1, 0], 416, 160), ctx)
        check[2](Case("rows of several tiles", [0, 5, 1, 2], 288, 96), ctx)
        check[4](Case("all on one", [0, 0, 8, 0], 512, 288), ctx)
        check[4](Case("all of four on one", [0, 16, 0], 512, 288), ctx)
        check[4](Case("one a group", even(8, 1), 1440, 224), ctx)
        check[4](Case("one each of four", even(16, 1), 1440, 224), ctx)
        check[2](Case("many segments", even(8, 1), 288, 32), ctx)
        check[1](Case("a chunk more", [3, 1, 0, 4], 1472, 96), ctx)
        check[8](
            Case("no expert", [1, 4, 3], 320, 96, ids=[1, -1, 0], experts=2),
            ctx,
        )
        check[4](Case("gaps", [1, 2], 320, 96, lead=1, trail=4), ctx)
        check[4](Case("none has an expert", [4], 320, 96, ids=[-1]), ctx)
        check[4](Case("large scales", [3, 1, 4], 416, 288, huge=True), ctx)
        check[4](Case("half a width", [1, 1, 1, 1, 0], 2880, 1440), ctx)
        check[4](Case("one token", [1, 0, 1, 1, 1], 2880, 2880), ctx)
        check[4](Case("two tokens", [1, 2, 1, 2, 1, 1], 2880, 2880), ctx)
        check[4](Case("two apart", even(8, 1), 2880, 2880), ctx)
        check[4](Case("three tokens", [2, 1, 3, 2, 3, 1], 2880, 1440), ctx)
        check[4](Case("four tokens", [4, 2, 3, 1, 1, 2, 3], 2880, 1440), ctx)
        check[4](Case("four apart", even(16, 1), 2880, 2880), ctx)
        check[4, from_logits=True](
            Case("one selects", [4, 0, 0, 0, 0], 288, 96), ctx
        )
        check[4, from_logits=True](
            Case("two select", even(8, 1), 416, 160), ctx
        )
        check[4, from_logits=True](
            Case("four select", even(16, 1), 416, 160), ctx
        )
        check[2, from_logits=True](
            Case("of many experts", even(291, 0), 64, 32, lead=8), ctx
        )
        check_every_value(0, ctx)
        check_every_value(128, ctx)
        for tokens in range(1, 5):
            check_overlap(tokens, 8, ctx)
    print("all passed")
