# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A linear layer of each expert of gpt-oss's sizes on one GPU.

Every case compares the output's rows with a plain float32 kernel's, and looks
past the last row for anything that was written there.
"""

from std.math import ceildiv, sqrt
from std.testing import assert_equal, assert_true

from max.gpu import global_idx
from max.gpu.host import DeviceBuffer, DeviceContext

from dense_linear.grouped import GroupedProblem, grouped_linear_gpu
from dense_linear.problem import TensorPointer

comptime EXPERTS = 6
comptime MAX_ROWS = 1200
comptime ROWS_PAST_THE_END = 256
comptime CANARY = BFloat16(12352)
comptime THREADS = 256
comptime TOLERANCE = 1e-2
"""Of the relative error in the L2 norm: BF16 rounds by up to 2^-9."""

comptime GROUPS: List[List[Int]] = [
    [0, 0, 0, 0, 0, 0],
    [0, 0, 1, 0, 0, 0],
    [1, 0, 1, 1, 0, 1],
    [3, 5, 0, 2, 7, 1],
    [64, 1, 63, 65, 0, 2],
    [127, 128, 129, 0, 1, 130],
    [0, 1000, 0, 3, 0, 0],
    [200, 200, 200, 200, 200, 200],
]
"""Rows of each group."""


def pointer[
    dtype: DType
](buffer: DeviceBuffer[dtype]) -> TensorPointer[Scalar[dtype]]:
    return (
        buffer.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


def fill_kernel(values: TensorPointer[BFloat16], size: Int64, seed: UInt64):
    """Fills a tensor with uniform numbers from -1 to 1."""
    var i = Int(global_idx.x)
    if i < Int(size):
        var bits = (UInt64(i) + (seed << 32)) * 0x9E37_79B9_7F4A_7C15
        bits ^= bits >> 29
        bits *= 0xBF58_476D_1CE4_E5B9
        bits ^= bits >> 32
        values[unsafe_offset=i] = (
            Float32(Int(bits >> 40)) / Float32(1 << 23) - 1.0
        ).cast[.bfloat16]()


def reference_kernel[
    features: Int, depth: Int
](
    output: TensorPointer[Float32],
    x: TensorPointer[BFloat16],
    weight: TensorPointer[BFloat16],
    starts: TensorPointer[UInt32],
    expert_ids: TensorPointer[Int32],
    rows: Int64,
):
    """Computes one element of the layer a thread, in float32."""
    var i = Int(global_idx.x)
    if i >= Int(rows) * features:
        return
    var row, feature = divmod(i, features)
    var group = 0
    while Int(starts[unsafe_offset=group + 1]) <= row:
        group += 1
    var expert = Int(expert_ids[unsafe_offset=group])
    var total = Float32(0)
    for k in range(depth):
        total += (
            x[unsafe_offset=row * depth + k].cast[.float32]()
            * weight[
                unsafe_offset=(expert * features + feature) * depth + k
            ].cast[.float32]()
        )
    output[unsafe_offset=i] = total


def random_tensor(
    ctx: DeviceContext, size: Int, seed: UInt64
) raises -> DeviceBuffer[.bfloat16]:
    var buffer = ctx.enqueue_create_buffer[.bfloat16](size)
    ctx.enqueue_function[fill_kernel](
        pointer(buffer),
        Int64(size),
        seed,
        grid_dim=ceildiv(size, THREADS),
        block_dim=THREADS,
    )
    return buffer


def test_layer[features: Int, depth: Int](ctx: DeviceContext) raises:
    """Runs a layer with every way to share out rows."""
    comptime allocated = (MAX_ROWS + ROWS_PAST_THE_END) * features
    var x = random_tensor(ctx, MAX_ROWS * depth, 1)
    var weight = random_tensor(ctx, EXPERTS * features * depth, 2)
    var starts = ctx.enqueue_create_buffer[.uint32](EXPERTS + 1)
    var starts_host = ctx.enqueue_create_host_buffer[.uint32](EXPERTS + 1)
    var ids = ctx.enqueue_create_buffer[.int32](EXPERTS)
    var ids_host = ctx.enqueue_create_host_buffer[.int32](EXPERTS)
    var output = ctx.enqueue_create_buffer[.bfloat16](allocated)
    var output_host = ctx.enqueue_create_host_buffer[.bfloat16](allocated)
    var expected = ctx.enqueue_create_buffer[.float32](MAX_ROWS * features)
    var expected_host = ctx.enqueue_create_host_buffer[.float32](
        MAX_ROWS * features
    )
    for counts in materialize[GROUPS]():
        starts_host[0] = 0
        for group in range(EXPERTS):
            # Groups are not in the order of the experts.
            ids_host[group] = Int32((5 * group + 2) % EXPERTS)
            starts_host[group + 1] = starts_host[group] + UInt32(counts[group])
        var rows = Int(starts_host[EXPERTS])
        starts.enqueue_copy_from(starts_host)
        ids.enqueue_copy_from(ids_host)
        output.enqueue_fill(CANARY)
        if rows > 0:
            ctx.enqueue_function[reference_kernel[features, depth]](
                pointer(expected),
                pointer(x),
                pointer(weight),
                pointer(starts),
                pointer(ids),
                Int64(rows),
                grid_dim=ceildiv(rows * features, THREADS),
                block_dim=THREADS,
            )
        grouped_linear_gpu(
            GroupedProblem[EXPERTS, features, depth](
                pointer(output),
                pointer(x),
                pointer(weight),
                pointer(starts),
                pointer(ids),
                rows=rows,
            ),
            ctx,
        )
        output.enqueue_copy_to(output_host)
        expected.enqueue_copy_to(expected_host)
        ctx.synchronize()

        var name = String(t"{features} x {depth}, groups of {counts}")
        var error = Float64(0)
        var norm = Float64(0)
        for i in range(rows * features):
            var want = expected_host[i].cast[.float64]()
            var difference = output_host[i].cast[.float64]() - want
            error += difference * difference
            norm += want * want
        # A NaN fails as well.
        assert_true(
            rows == 0 or sqrt(error / norm) < TOLERANCE,
            String(t"{name}: the relative error is {sqrt(error / norm)}"),
        )
        var end = rows
        for i in range(rows * features, allocated):
            if output_host[i] != CANARY:
                end = i // features + 1
        assert_equal(end, rows, String(t"{name}: rows past the end changed"))
    print(t"{features} x {depth}: passed")


def main() raises:
    with DeviceContext() as ctx:
        # gpt-oss's projections, whole and over two devices.
        test_layer[5760, 2880](ctx)
        test_layer[2880, 2880](ctx)
        test_layer[2880, 1440](ctx)
        # One that is no multiple of a tile.
        test_layer[192, 96](ctx)
