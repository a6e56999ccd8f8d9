# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A BF16 linear layer with a bias that writes its output's rows alone."""

from std.sys import get_defined_int, size_of

from internal_utils import arg_parse
from max.benchmark import bencher_iter_custom
from max.gpu.host import DeviceBuffer, DeviceContext
from std.benchmark import (
    Bench,
    Bencher,
    BenchId,
    BenchMetric,
    ThroughputMeasure,
)

from dense_linear.linear import dense_linear_gpu
from dense_linear.problem import LinearProblem, TensorPointer

comptime L2_BYTES = 64 << 20
"""More than the L2 cache of a Hopper GPU."""


def pointer(buffer: DeviceBuffer[.bfloat16]) -> TensorPointer[BFloat16]:
    return (
        buffer.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


def constant(
    ctx: DeviceContext, size: Int, value: BFloat16
) raises -> DeviceBuffer[.bfloat16]:
    var buffer = ctx.enqueue_create_buffer[.bfloat16](size)
    buffer.enqueue_fill(value)
    return buffer^


def bench_linear[
    features: Int, depth: Int
](ctx: DeviceContext, mut bench: Bench, rows: Int) raises:
    comptime weight_size = features * depth
    # So many copies of the weights that none is in L2 when it is read again.
    comptime copies = 1 + L2_BYTES // (weight_size * size_of[BFloat16]())
    var x = constant(ctx, rows * depth, 0.5)
    var weights = constant(ctx, copies * weight_size, 0.25)
    var bias = constant(ctx, features, 1)
    var output = ctx.enqueue_create_buffer[.bfloat16](rows * features)

    @inline(.always)
    def bench_func(mut bencher: Bencher) raises {imm}:
        @inline(.always)
        def launch(ctx: DeviceContext, iteration: Int) raises {imm}:
            dense_linear_gpu(
                LinearProblem[features, depth, True](
                    pointer(output),
                    pointer(x),
                    pointer(weights).unsafe_offset(
                        iteration % copies * weight_size
                    ),
                    pointer(bias),
                    rows=rows,
                ),
                ctx,
            )

        bencher_iter_custom(bencher, launch, ctx)

    bench.bench_function(
        bench_func,
        BenchId("dense_linear", input_id=String(t"{rows}x{features}x{depth}")),
        [
            ThroughputMeasure(
                BenchMetric.bytes, weight_size * size_of[BFloat16]()
            ),
            ThroughputMeasure(BenchMetric.flops, 2 * rows * weight_size),
        ],
    )
    ctx.synchronize()


def main() raises:
    comptime features = get_defined_int["features", 2880]()
    comptime depth = get_defined_int["depth", 4096]()
    var rows = arg_parse("rows", 1)
    var bench = Bench()
    with DeviceContext() as ctx:
        bench_linear[features, depth](ctx, bench, rows)
    bench.dump_report()
