# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The Hopper kernels against the executable specification, on one GPU.

Every case draws fresh random weights, activations and routings, runs the CPU
implementation and the GPU's on the same bytes, and compares them. Outputs are
poisoned first, so that an element nobody wrote shows as NaN.
"""

from std.math import isnan, sqrt
from std.memory import bitcast
from std.random import random_float64, random_ui64, seed
from std.testing import assert_equal, assert_true
from std.time import perf_counter_ns

from max.gpu.host import DeviceContext

from mxfp4_moe.combine import combine_cpu, combine_gpu
from mxfp4_moe.dispatch import grouped_matmul
from mxfp4_moe.epilogue import (
    BiasSwiGLU,
    BiasWeightScatter,
    Epilogue,
    StoreBF16,
)
from mxfp4_moe.kernel_argument import TensorPointer
from mxfp4_moe.matmul_cpu import grouped_matmul_cpu
from mxfp4_moe.matmul_sm90 import TileShape, grouped_matmul_sm90
from mxfp4_moe.panels import PanelStack, to_panels_gpu
from mxfp4_moe.prefill_layout import PrefillLayout, PrefillShape
from mxfp4_moe.prefill_sm90 import prefill_matmul_sm90
from mxfp4_moe.prefill_sums import ROW_UNIT
from mxfp4_moe.problem import GatherRow, MatmulProblem, RowMap, SameRow
from mxfp4_moe.routing import RoutingTables, route_cpu, route_gpu
from mxfp4_moe.select import RouterScores, select_cpu, select_gpu
from mxfp4_moe.stream_layout import StreamLayout, StreamShape
from mxfp4_moe.stream_sm90 import stream_matmul_sm90

from random_tensors import (
    Tensor,
    compare,
    device_pointer,
    poison,
    random_bf16,
    random_byte,
    random_scale,
)

comptime TOP_K = 4


comptime _NO_TILE = TileShape(0, 0, 0, 0)
comptime _NO_STREAM = StreamShape(0, 0, 0, 0, 0)
comptime _NO_PREFILL = PrefillShape(0, 0)


@fieldwise_init
struct Kernel(TrivialRegisterPassable):
    """One of the kernels that a dispatch can choose."""

    var tile: TileShape
    """The tile, for the kernel of tiles."""
    var stream: StreamShape
    """How blocks work, for the streaming kernel; no slots for the others."""
    var prefill: PrefillShape
    """How blocks work, for the prefill kernel; no consumers for the others."""

    comptime TILE_FEW = Self(TileShape.FEW_ROWS, _NO_STREAM, _NO_PREFILL)
    comptime TILE_MANY = Self(TileShape.MANY_ROWS, _NO_STREAM, _NO_PREFILL)
    comptime STREAM_EIGHT = Self(_NO_TILE, StreamShape.EIGHT_ROWS, _NO_PREFILL)
    comptime STREAM_FOUR = Self(_NO_TILE, StreamShape.FOUR_ROWS, _NO_PREFILL)
    comptime STREAM_FOUR_NEXT = Self(
        _NO_TILE, StreamShape.FOUR_ROWS_NEXT, _NO_PREFILL
    )
    comptime STREAM_TWENTY_FOUR = Self(
        _NO_TILE, StreamShape.TWENTY_FOUR_ROWS, _NO_PREFILL
    )
    # Few warps, so that each has many panels.
    comptime STREAM_NARROW = Self(
        _NO_TILE, StreamShape(8, 4, 2, 15, 128), _NO_PREFILL
    )
    comptime PREFILL_FEW = Self(_NO_TILE, _NO_STREAM, PrefillShape.FEW_ROWS)
    comptime PREFILL_MANY = Self(_NO_TILE, _NO_STREAM, PrefillShape.MANY_ROWS)

    def name(self) -> String:
        if self.prefill.consumers > 0:
            return String(t"prefill of {self.prefill.tile_rows}")
        if self.stream.slots > 0:
            return String(
                t"stream of {self.stream.rows}, {self.stream.slots} slots"
            )
        return String(t"{self.tile.features()}x{self.tile.rows()}")

    @staticmethod
    def takes[kernel: Self](problem: MatmulProblem) -> Bool:
        """Returns whether the kernel takes a problem."""
        comptime if kernel.stream.slots > 0:
            return StreamLayout[kernel.stream].fits(problem)
        comptime if kernel.prefill.consumers > 0:
            return PrefillLayout[kernel.prefill].fits(problem)
        return True


def launch[
    RowMapType: RowMap, EpilogueType: Epilogue, //, kernel: Kernel
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    ctx: DeviceContext,
) raises:
    """Runs a kernel, from panels that are made first where it takes those."""
    comptime if kernel.tile.stages > 0:
        grouped_matmul_sm90[kernel.tile](problem, rows, epilogue, ctx)
    else:
        var features = Int(problem.experts * problem.features)
        var elements = features * Int(problem.depth)
        var blocks = ctx.enqueue_create_buffer[.uint8](elements // 2)
        var scales = ctx.enqueue_create_buffer[.uint8](elements // 32)
        to_panels_gpu(
            PanelStack(
                device_pointer(blocks),
                device_pointer(scales),
                problem.blocks,
                problem.scales,
                rows=features,
                depth=Int(problem.depth),
            ),
            ctx,
        )
        var panels = problem
        panels.blocks = device_pointer(blocks)
        panels.scales = device_pointer(scales)
        comptime if kernel.prefill.consumers > 0:
            prefill_matmul_sm90[kernel.prefill](panels, rows, epilogue, ctx)
        else:
            stream_matmul_sm90[kernel.stream](panels, rows, epilogue, ctx)
        ctx.synchronize()
        _ = blocks^
        _ = scales^


struct Shape(Copyable, Movable):
    """A shape and a routing."""

    var name: String
    var counts: List[Int]
    """Rows of each group."""
    var ids: List[Int]
    """Expert of each group."""
    var features: Int
    var depth: Int
    var experts: Int
    var lead: Int
    """Rows before the first group."""
    var trail: Int
    """Rows after the last group."""

    def __init__(
        out self,
        name: String,
        var counts: List[Int],
        features: Int,
        depth: Int,
        *,
        var ids: List[Int] = List[Int](),
        experts: Int = 0,
        lead: Int = 0,
        trail: Int = 0,
    ):
        self.name = name
        self.experts = max(experts, len(counts))
        if len(ids) == 0:
            for group in range(len(counts)):
                ids.append(group)
        self.counts = counts^
        self.ids = ids^
        self.features = features
        self.depth = depth
        self.lead = lead
        self.trail = trail

    def rows(self) -> Int:
        var total = self.lead + self.trail
        for count in self.counts:
            total += count
        return total


def edges(most: Int, unit: Int) -> List[Int]:
    """Every multiple of a unit, and one row more, up to `most`."""
    var rows: List[Int] = [1]
    for units in range(1, most // unit + 1):
        rows.append(units * unit)
        if units * unit < most:
            rows.append(units * unit + 1)
    return rows^


def tile_cases(most: Int) -> List[Shape]:
    """Every number of rows that a prefill tile of up to `most` can compute, one row
    past each, and what takes several tiles."""
    var twice = 2 * most
    return [
        Shape("tiles", edges(most, ROW_UNIT), 208, 384),
        Shape(
            "two tiles",
            [
                most + 1,
                most + 8,
                most + 9,
                twice - most // 2 - 15,
                twice - most // 2,
                twice - 32,
                twice,
            ],
            208,
            384,
        ),
        Shape(
            "more tiles",
            [
                twice + 1,
                0,
                twice + 8,
                twice + 16,
                twice + 49,
                twice + most,
                twice + most + 1,
            ],
            208,
            416,
        ),
        Shape("K = 13 blocks", [30, 1, 300], 384, 416),
        Shape("K = 1440, many", [40, 129], 192, 1440),
        Shape("K = 8192, fewer stages", [40, 3], 208, 8192),
        Shape("several tiles a block", even(11, 20), 5760, 256),
    ]


def even(groups: Int, rows: Int) -> List[Int]:
    return List[Int](length=groups, fill=rows)


def spread(groups: Int, rows: Int) raises -> List[Int]:
    """Gives each of `rows` rows to a random group."""
    var counts = List[Int](length=groups, fill=0)
    for _ in range(rows):
        counts[Int(random_ui64(0, UInt64(groups - 1)))] += 1
    return counts^


struct Operands(Movable):
    """The inputs of one case."""

    var activations: Tensor[.bfloat16]
    var blocks: Tensor[.uint8]
    var scales: Tensor[.uint8]
    var bias: Tensor[.bfloat16]
    var starts: Tensor[.uint32]
    var ids: Tensor[.int32]
    var order: Tensor[.uint32]
    var weights: Tensor[.float32]
    var tokens: Int

    def __init__(out self, shape: Shape, ctx: DeviceContext) raises:
        var rows = shape.rows()
        self.tokens = (rows + TOP_K - 1) // TOP_K
        var matrix = shape.experts * shape.features * shape.depth
        self.activations = Tensor[.bfloat16](
            ctx, max(rows, self.tokens) * shape.depth
        )
        self.blocks = Tensor[.uint8](ctx, matrix // 2)
        self.scales = Tensor[.uint8](ctx, matrix // 32)
        self.bias = Tensor[.bfloat16](ctx, shape.experts * shape.features)
        self.starts = Tensor[.uint32](ctx, len(shape.counts) + 1)
        self.ids = Tensor[.int32](ctx, len(shape.counts))
        self.order = Tensor[.uint32](ctx, rows)
        self.weights = Tensor[.float32](ctx, self.tokens * TOP_K)

        def weight() raises -> Float32:
            return random_float64().cast[.float32]()

        self.activations.fill(random_bf16)
        self.blocks.fill(random_byte)
        self.scales.fill(random_scale)
        self.bias.fill(random_bf16)
        self.weights.fill(weight)
        var first = shape.lead
        for group in range(len(shape.counts)):
            self.starts.host[group] = UInt32(first)
            self.ids.host[group] = Int32(shape.ids[group])
            first += shape.counts[group]
        self.starts.host[len(shape.counts)] = UInt32(first)
        # A random order of the slots.
        for row in range(rows):
            self.order.host[row] = UInt32(row)
        for row in range(rows - 1, 0, -1):
            var other = Int(random_ui64(0, UInt64(row)))
            var slot = self.order.host[row]
            self.order.host[row] = self.order.host[other]
            self.order.host[other] = slot
        self.starts.device.enqueue_copy_from(self.starts.host)
        self.ids.device.enqueue_copy_from(self.ids.host)
        self.order.device.enqueue_copy_from(self.order.host)
        ctx.synchronize()

    def problem(self, shape: Shape, *, on_device: Bool) -> MatmulProblem:
        var host = MatmulProblem(
            self.activations.on_host(),
            self.blocks.on_host(),
            self.scales.on_host(),
            self.starts.on_host(),
            self.ids.on_host(),
            rows=shape.rows(),
            experts=shape.experts,
            features=shape.features,
            depth=shape.depth,
            groups=len(shape.counts),
        )
        if on_device:
            host.activations = self.activations.on_device()
            host.blocks = self.blocks.on_device()
            host.scales = self.scales.on_device()
            host.starts = self.starts.on_device()
            host.expert_ids = self.ids.on_device()
        return host


def check[
    dtype: DType,
    RowMapType: RowMap,
    EpilogueType: Epilogue,
    //,
    kernel: Kernel,
](
    name: String,
    shape: Shape,
    operands: Operands,
    rows_host: RowMapType,
    rows_device: RowMapType,
    epilogue_host: EpilogueType,
    epilogue_device: EpilogueType,
    expected: Tensor[dtype],
    actual: Tensor[dtype],
    tolerance: Float64,
    ctx: DeviceContext,
) raises:
    """Runs one matmul on both devices and compares."""
    if not Kernel.takes[kernel](operands.problem(shape, on_device=True)):
        return
    poison(actual, ctx)
    grouped_matmul_cpu(
        operands.problem(shape, on_device=False), rows_host, epilogue_host
    )
    if shape.rows() > 0:
        launch[kernel](
            operands.problem(shape, on_device=True),
            rows_device,
            epilogue_device,
            ctx,
        )
    compare(
        String(t"{kernel.name()} {shape.name}, {name}"),
        expected,
        actual,
        len(expected.host) if shape.rows() > 0 else 0,
        tolerance,
        ctx,
    )


def check_store[kernel: Kernel](shape: Shape, ctx: DeviceContext) raises:
    var operands = Operands(shape, ctx)
    var expected = Tensor[.bfloat16](ctx, shape.rows() * shape.features)
    var actual = Tensor[.bfloat16](ctx, shape.rows() * shape.features)
    check[kernel](
        "store",
        shape,
        operands,
        SameRow(),
        SameRow(),
        StoreBF16(expected.on_host(), Int32(shape.features)),
        StoreBF16(actual.on_device(), Int32(shape.features)),
        expected,
        actual,
        1e-3,
        ctx,
    )
    _ = operands^


def check_swiglu[kernel: Kernel](shape: Shape, ctx: DeviceContext) raises:
    var operands = Operands(shape, ctx)
    var expected = Tensor[.bfloat16](ctx, shape.rows() * shape.features // 2)
    var actual = Tensor[.bfloat16](ctx, shape.rows() * shape.features // 2)
    check[kernel](
        "swiglu",
        shape,
        operands,
        GatherRow[TOP_K](operands.order.on_host()),
        GatherRow[TOP_K](operands.order.on_device()),
        BiasSwiGLU[1.702, 7.0](
            expected.on_host(), operands.bias.on_host(), Int32(shape.features)
        ),
        BiasSwiGLU[1.702, 7.0](
            actual.on_device(),
            operands.bias.on_device(),
            Int32(shape.features),
        ),
        expected,
        actual,
        1e-3,
        ctx,
    )
    _ = operands^


def check_scatter[kernel: Kernel](shape: Shape, ctx: DeviceContext) raises:
    var operands = Operands(shape, ctx)
    var expected = Tensor[.bfloat16](ctx, shape.rows() * shape.features)
    var actual = Tensor[.bfloat16](ctx, shape.rows() * shape.features)
    check[kernel](
        "scatter",
        shape,
        operands,
        SameRow(),
        SameRow(),
        BiasWeightScatter(
            expected.on_host(),
            operands.bias.on_host(),
            operands.weights.on_host(),
            operands.order.on_host(),
            Int32(shape.features),
        ),
        BiasWeightScatter(
            actual.on_device(),
            operands.bias.on_device(),
            operands.weights.on_device(),
            operands.order.on_device(),
            Int32(shape.features),
        ),
        expected,
        actual,
        1e-3,
        ctx,
    )
    _ = operands^


def check_kernel[kernel: Kernel](cases: List[Shape], ctx: DeviceContext) raises:
    for shape in cases:
        check_store[kernel](shape, ctx)
        check_swiglu[kernel](shape, ctx)
        check_scatter[kernel](shape, ctx)


def check_every_value[kernel: Kernel](ctx: DeviceContext) raises:
    """Every code times every scale byte, bit for bit.

    Feature `16 * scale + code` has one element of that code, at a position of
    its own, and zeros besides; activations are all one.
    """
    comptime depth = 384
    var shape = Shape("values", [1], 4096, depth)
    var operands = Operands(shape, ctx)
    for i in range(depth):
        operands.activations.host[i] = 1
    for feature in range(4096):
        var code = UInt8(feature % 16)
        var position = feature % 7 * 61
        for byte in range(depth // 2):
            operands.blocks.host[feature * depth // 2 + byte] = 0
        operands.blocks.host[feature * depth // 2 + position // 2] = (
            code << 4 if position % 2 else code
        )
        # The blocks without the element have a scale of their own.
        for block in range(depth // 32):
            operands.scales.host[feature * depth // 32 + block] = 127
        operands.scales.host[feature * depth // 32 + position // 32] = UInt8(
            feature // 16
        )
    operands.activations.device.enqueue_copy_from(operands.activations.host)
    operands.blocks.device.enqueue_copy_from(operands.blocks.host)
    operands.scales.device.enqueue_copy_from(operands.scales.host)
    var expected = Tensor[.bfloat16](ctx, 4096)
    var actual = Tensor[.bfloat16](ctx, 4096)
    poison(actual, ctx)
    grouped_matmul_cpu(
        operands.problem(shape, on_device=False),
        SameRow(),
        StoreBF16(expected.on_host(), 4096),
    )
    launch[kernel](
        operands.problem(shape, on_device=True),
        SameRow(),
        StoreBF16(actual.on_device(), 4096),
        ctx,
    )
    actual.device.enqueue_copy_to(actual.host)
    ctx.synchronize()
    var infinities = 0
    for feature in range(4096):
        var want = expected.host[feature]
        var have = actual.host[feature]
        if isnan(want) and isnan(have):
            continue
        infinities += Int(abs(want.cast[.float32]()) > 3.4e38)
        # A sum with a positive zero has no negative zero.
        assert_true(
            want == have,
            String(
                t"scale {feature // 16}, code {feature % 16}: {have}, not"
                t" {want}"
            ),
        )
    assert_true(infinities > 0, "no value left BF16's range")
    print("  every code times every scale: exact")
    _ = operands^


def check_far_expert[kernel: Kernel](ctx: DeviceContext) raises:
    """An expert whose packed bytes begin past 4 GiB.

    The GPU's stack holds only that expert's weights; the bytes before them are
    whatever was there.
    """
    comptime experts = 1040
    var shape = Shape("past 4 GiB", [5], 2048, 4096)
    var operands = Operands(shape, ctx)
    var blocks = len(operands.blocks.host)
    var scales = len(operands.scales.host)
    var far_blocks = ctx.enqueue_create_buffer[.uint8](experts * blocks)
    var far_scales = ctx.enqueue_create_buffer[.uint8](experts * scales)
    far_blocks.create_sub_buffer[.uint8](
        (experts - 1) * blocks, blocks
    ).enqueue_copy_from(operands.blocks.host)
    far_scales.create_sub_buffer[.uint8](
        (experts - 1) * scales, scales
    ).enqueue_copy_from(operands.scales.host)
    var expected = Tensor[.bfloat16](ctx, shape.rows() * shape.features)
    var actual = Tensor[.bfloat16](ctx, shape.rows() * shape.features)
    poison(actual, ctx)
    grouped_matmul_cpu(
        operands.problem(shape, on_device=False),
        SameRow(),
        StoreBF16(expected.on_host(), Int32(shape.features)),
    )
    operands.ids.host[0] = experts - 1
    operands.ids.device.enqueue_copy_from(operands.ids.host)
    var problem = operands.problem(shape, on_device=True)
    problem.experts = experts
    problem.blocks = (
        far_blocks.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )
    problem.scales = (
        far_scales.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )
    launch[kernel](
        problem,
        SameRow(),
        StoreBF16(actual.on_device(), Int32(shape.features)),
        ctx,
    )
    compare(
        shape.name,
        expected,
        actual,
        shape.rows() * shape.features,
        1e-3,
        ctx,
    )
    _ = operands^
    _ = far_blocks^
    _ = far_scales^


def check_route(
    tokens: Int, experts: Int, skewed: Bool, ctx: DeviceContext
) raises:
    var slots = tokens * TOP_K
    var choices = Tensor[.int32](ctx, slots)

    def choice() raises {imm} -> Int32:
        var range = UInt64(experts - 1)
        return Int32(random_ui64(0, random_ui64(0, range) if skewed else range))

    choices.fill(choice)
    var order = Tensor[.uint32](ctx, slots)
    var starts = Tensor[.uint32](ctx, experts + 1)
    var ids = Tensor[.int32](ctx, experts)
    order.device.enqueue_fill(0xFFFF_FFFF)
    starts.device.enqueue_fill(0xFFFF_FFFF)
    route_cpu(
        RoutingTables(
            order.on_host(), starts.on_host(), ids.on_host(), choices.on_host()
        ),
        slots,
        experts,
    )
    route_gpu(
        RoutingTables(
            order.on_device(),
            starts.on_device(),
            ids.on_device(),
            choices.on_device(),
        ),
        slots,
        experts,
        ctx,
    )
    var order_got = ctx.enqueue_create_host_buffer[.uint32](max(slots, 1))
    var starts_got = ctx.enqueue_create_host_buffer[.uint32](experts + 1)
    var ids_got = ctx.enqueue_create_host_buffer[.int32](experts)
    order.device.enqueue_copy_to(order_got)
    starts.device.enqueue_copy_to(starts_got)
    ids.device.enqueue_copy_to(ids_got)
    ctx.synchronize()
    for slot in range(slots):
        assert_equal(order_got[slot], order.host[slot], "order")
    for expert in range(experts + 1):
        assert_equal(starts_got[expert], starts.host[expert], "starts")
    for expert in range(experts):
        assert_equal(ids_got[expert], ids.host[expert], "ids")
    print(t"  route {tokens} tokens, {experts} experts, skewed {skewed}: equal")


def check_select(
    tokens: Int, experts: Int, levels: Int, ctx: DeviceContext
) raises:
    """Logits have `levels` values: with few, many are equal."""
    var slots = tokens * TOP_K
    var logits = Tensor[.bfloat16](ctx, tokens * experts)

    def logit() raises {imm} -> BFloat16:
        var level = Int(random_ui64(0, UInt64(levels - 1)))
        return (Float32(level - levels // 2) / 64).cast[.bfloat16]()

    logits.fill(logit)
    var weights = Tensor[.float32](ctx, slots)
    var choices = Tensor[.int32](ctx, slots)
    var order = Tensor[.uint32](ctx, slots)
    var starts = Tensor[.uint32](ctx, experts + 1)
    var ids = Tensor[.int32](ctx, experts)
    order.device.enqueue_fill(0xFFFF_FFFF)
    starts.device.enqueue_fill(0xFFFF_FFFF)
    select_cpu[TOP_K](
        RouterScores(
            weights.on_host(), logits.on_host(), Int32(tokens), Int32(experts)
        ),
        RoutingTables(
            order.on_host(), starts.on_host(), ids.on_host(), choices.on_host()
        ),
    )
    select_gpu[TOP_K](
        RouterScores(
            weights.on_device(),
            logits.on_device(),
            Int32(tokens),
            Int32(experts),
        ),
        RoutingTables(
            order.on_device(),
            starts.on_device(),
            ids.on_device(),
            choices.on_device(),
        ),
        ctx,
    )
    var weights_got = ctx.enqueue_create_host_buffer[.float32](max(slots, 1))
    var choices_got = ctx.enqueue_create_host_buffer[.int32](max(slots, 1))
    var order_got = ctx.enqueue_create_host_buffer[.uint32](max(slots, 1))
    var starts_got = ctx.enqueue_create_host_buffer[.uint32](experts + 1)
    var ids_got = ctx.enqueue_create_host_buffer[.int32](experts)
    weights.device.enqueue_copy_to(weights_got)
    choices.device.enqueue_copy_to(choices_got)
    order.device.enqueue_copy_to(order_got)
    starts.device.enqueue_copy_to(starts_got)
    ids.device.enqueue_copy_to(ids_got)
    ctx.synchronize()
    for slot in range(slots):
        assert_equal(choices_got[slot], choices.host[slot], "choices")
        assert_equal(order_got[slot], order.host[slot], "order")
        assert_true(
            abs(weights_got[slot] - weights.host[slot]) < 1e-5, "weights"
        )
    for expert in range(experts + 1):
        assert_equal(starts_got[expert], starts.host[expert], "starts")
    for expert in range(experts):
        assert_equal(ids_got[expert], ids.host[expert], "ids")
    print(
        t"  select {tokens} tokens, {experts} experts, {levels} levels: equal"
    )


def check_combine(tokens: Int, features: Int, ctx: DeviceContext) raises:
    var weighted = Tensor[.bfloat16](ctx, tokens * TOP_K * features)
    weighted.fill(random_bf16)
    var expected = Tensor[.bfloat16](ctx, tokens * features)
    var actual = Tensor[.bfloat16](ctx, tokens * features)
    poison(actual, ctx)
    combine_cpu[TOP_K](expected.on_host(), weighted.on_host(), tokens, features)
    combine_gpu[TOP_K](
        actual.on_device(), weighted.on_device(), tokens, features, ctx
    )
    actual.device.enqueue_copy_to(actual.host)
    ctx.synchronize()
    for i in range(tokens * features):
        assert_equal(actual.host[i], expected.host[i], "combine")
    print(t"  combine {tokens} tokens of {features}: equal")
    _ = weighted^


def check_layers(tokens: Int, experts: Int, ctx: DeviceContext) raises:
    """Layers whose launches overlap give the same bits as launches that wait.

    Each layer takes the one's output before it and other logits.
    """
    comptime layers = 24
    comptime width = 2880
    var slots = tokens * TOP_K
    var logits = Tensor[.bfloat16](ctx, layers * tokens * experts)
    var hidden = Tensor[.bfloat16](ctx, tokens * width)
    var gate_up = Tensor[.uint8](ctx, experts * 2 * width * width // 2)
    var gate_up_scales = Tensor[.uint8](ctx, experts * 2 * width * width // 32)
    var down = Tensor[.uint8](ctx, experts * width * width // 2)
    var down_scales = Tensor[.uint8](ctx, experts * width * width // 32)
    var bias = Tensor[.bfloat16](ctx, experts * 2 * width)
    logits.fill(random_bf16)
    hidden.fill(random_bf16)
    gate_up.fill(random_byte)
    gate_up_scales.fill(random_scale)
    down.fill(random_byte)
    down_scales.fill(random_scale)
    bias.fill(random_bf16)
    var weights = Tensor[.float32](ctx, slots)
    var choices = Tensor[.int32](ctx, slots)
    var order = Tensor[.uint32](ctx, slots)
    var starts = Tensor[.uint32](ctx, experts + 1)
    var ids = Tensor[.int32](ctx, experts)
    var gated = Tensor[.bfloat16](ctx, slots * width)
    var weighted = Tensor[.bfloat16](ctx, slots * width)
    var tables = RoutingTables(
        order.on_device(),
        starts.on_device(),
        ids.on_device(),
        choices.on_device(),
    )

    def stack(
        blocks: Tensor[.uint8],
        scales: Tensor[.uint8],
        activations: TensorPointer[BFloat16],
        features: Int,
    ) {imm} -> MatmulProblem:
        return MatmulProblem(
            activations,
            blocks.on_device(),
            scales.on_device(),
            starts.on_device(),
            ids.on_device(),
            rows=slots,
            experts=experts,
            features=features,
            depth=width,
            groups=experts,
        )

    def run(outputs: Tensor[.bfloat16], waits: Bool, layer: Int) raises {imm}:
        var activations = hidden.on_device()
        if layer > 0:
            activations = outputs.on_device().unsafe_offset(
                (layer - 1) * tokens * width
            )
        select_gpu[TOP_K](
            RouterScores(
                weights.on_device(),
                logits.on_device().unsafe_offset(layer * tokens * experts),
                Int32(tokens),
                Int32(experts),
            ),
            tables,
            ctx,
        )
        if waits:
            ctx.synchronize()
        grouped_matmul["gpu", in_panels=True](
            stack(gate_up, gate_up_scales, activations, 2 * width),
            GatherRow[TOP_K](order.on_device()),
            BiasSwiGLU[1.702, 7.0](
                gated.on_device(), bias.on_device(), Int32(2 * width)
            ),
            ctx,
        )
        if waits:
            ctx.synchronize()
        grouped_matmul["gpu", in_panels=True, tables_ready=True](
            stack(down, down_scales, gated.on_device(), width),
            SameRow(),
            BiasWeightScatter(
                weighted.on_device(),
                bias.on_device(),
                weights.on_device(),
                order.on_device(),
                Int32(width),
            ),
            ctx,
        )
        if waits:
            ctx.synchronize()
        combine_gpu[TOP_K](
            outputs.on_device().unsafe_offset(layer * tokens * width),
            weighted.on_device(),
            tokens,
            width,
            ctx,
        )
        if waits:
            ctx.synchronize()

    var expected = Tensor[.bfloat16](ctx, layers * tokens * width)
    var actual = Tensor[.bfloat16](ctx, layers * tokens * width)
    poison(expected, ctx)
    for layer in range(layers):
        run(expected, True, layer)
    expected.device.enqueue_copy_to(expected.host)
    for _ in range(4):
        poison(actual, ctx)
        for layer in range(layers):
            run(actual, False, layer)
        actual.device.enqueue_copy_to(actual.host)
        ctx.synchronize()
        for i in range(layers * tokens * width):
            assert_equal(
                bitcast[.uint16](actual.host[i]),
                bitcast[.uint16](expected.host[i]),
                "layers",
            )
    print(t"  {layers} layers of {tokens} tokens, {experts} experts: equal")
    _ = hidden^
    _ = logits^
    _ = gate_up^
    _ = gate_up_scales^
    _ = down^
    _ = down_scales^
    _ = bias^
    _ = weights^
    _ = choices^
    _ = order^
    _ = starts^
    _ = ids^
    _ = gated^
    _ = weighted^


def main() raises:
    seed(Int(perf_counter_ns() % 1_000_000_007))
    with DeviceContext() as ctx:
        var cases: List[Shape] = [
            Shape("no rows", [0, 0], 32, 64),
            Shape("one row", [1], 8, 32),
            Shape("one row, K = 96", [0, 1, 0], 40, 96),
            Shape("experts with none", [0, 3, 0, 0, 5, 0], 48, 160),
            Shape("all on one", [0, 0, 37, 0], 80, 288),
            Shape("one a group", even(40, 1), 16, 128),
            Shape("K = 1440", [1, 0, 9, 2], 48, 1440),
            Shape("K = 2880", [4, 8, 1, 0, 17], 144, 2880),
            Shape("long tail", [63, 1, 64, 65], 272, 512),
            Shape("repeated ids", [3, 2, 4], 32, 64, ids=[5, 0, 5], experts=6),
            Shape("no expert", [3, 9, 4], 32, 64, ids=[1, -1, 0], experts=2),
            Shape("gaps", [3, 9, 4], 32, 64, lead=11, trail=70),
            Shape("gpt-oss gate/up, one token", [1, 0, 1, 1, 1], 5760, 2880),
            Shape("gpt-oss down, two tokens", [2, 1, 1, 3, 1], 2880, 2880),
            Shape("few rows of many experts", spread(32, 8), 144, 224),
            Shape("random", spread(32, 200), 112, 416),
            Shape("many", spread(128, 900), 64, 224),
        ]
        # Groups that take all numbers of octets, and whole and broken chunks.
        var octet_cases: List[Shape] = [
            Shape("one row, one block", [1], 64, 32),
            Shape("tiles", [1, 0, 9, 16, 17, 33, 40, 2, 5, 70], 320, 416),
            Shape("whole chunks", spread(32, 400), 192, 480),
            Shape("K = 1440, some rows", [12, 3, 30, 1], 5760, 1440),
            Shape("gpt-oss down, some rows", [9, 14, 8, 31], 2880, 2880),
            Shape("no expert", [3, 9, 4], 64, 64, ids=[1, -1, 0], experts=2),
            Shape("gaps", [3, 9, 4], 128, 96, lead=11, trail=70),
        ]
        check_kernel[Kernel.STREAM_EIGHT](cases, ctx)
        check_kernel[Kernel.STREAM_FOUR](cases, ctx)
        check_kernel[Kernel.STREAM_FOUR_NEXT](cases, ctx)
        check_kernel[Kernel.STREAM_TWENTY_FOUR](cases, ctx)
        check_kernel[Kernel.STREAM_TWENTY_FOUR](octet_cases, ctx)
        check_kernel[Kernel.STREAM_NARROW](cases, ctx)
        check_kernel[Kernel.TILE_FEW](cases, ctx)
        check_kernel[Kernel.TILE_MANY](cases, ctx)
        check_kernel[Kernel.PREFILL_FEW](cases, ctx)
        check_kernel[Kernel.PREFILL_FEW](
            tile_cases(PrefillShape.FEW_ROWS.tile_rows), ctx
        )
        check_kernel[Kernel.PREFILL_MANY](cases, ctx)
        check_kernel[Kernel.PREFILL_MANY](
            tile_cases(PrefillShape.MANY_ROWS.tile_rows), ctx
        )
        check_every_value[Kernel.STREAM_NARROW](ctx)
        check_every_value[Kernel.STREAM_TWENTY_FOUR](ctx)
        check_every_value[Kernel.TILE_FEW](ctx)
        check_every_value[Kernel.TILE_MANY](ctx)
        check_every_value[Kernel.PREFILL_FEW](ctx)
        check_every_value[Kernel.PREFILL_MANY](ctx)
        check_far_expert[Kernel.TILE_FEW](ctx)
        check_far_expert[Kernel.STREAM_NARROW](ctx)
        check_far_expert[Kernel.PREFILL_FEW](ctx)
        check_far_expert[Kernel.PREFILL_MANY](ctx)
        check_route(0, 8, False, ctx)
        check_route(1, 32, False, ctx)
        check_route(77, 128, False, ctx)
        check_route(1025, 128, True, ctx)
        check_route(8192, 32, True, ctx)
        check_select(0, 8, 9, ctx)
        check_select(1, 32, 1000, ctx)
        check_select(7, 128, 5, ctx)
        check_select(64, 128, 1000, ctx)
        check_select(65, 128, 1000, ctx)
        check_select(8192, 33, 5, ctx)
        check_combine(0, 64, ctx)
        check_combine(3, 2880, ctx)
        check_combine(70, 8, ctx)
        check_layers(1, 8, ctx)
        check_layers(5, 8, ctx)
        check_layers(70, 8, ctx)
        check_layers(300, 8, ctx)
    print("all passed")
