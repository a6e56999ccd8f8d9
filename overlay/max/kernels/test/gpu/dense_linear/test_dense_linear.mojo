# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Linear layers of gpt-oss's sizes on one GPU.

Every case compares the output's rows with a plain float32 kernel's, and looks
past the last row for anything that was written there.
"""

from std.math import ceildiv, sqrt
from std.testing import assert_equal, assert_true

from max.gpu import global_idx
from max.gpu.host import DeviceBuffer, DeviceContext

from dense_linear.linear import dense_linear_gpu
from dense_linear.problem import LinearProblem, TensorPointer

comptime ROW_COUNTS = [
    0,
    1,
    2,
    3,
    5,
    6,
    7,
    8,
    9,
    16,
    17,
    31,
    32,
    33,
    40,
    63,
    64,
    65,
    100,
    129,
    257,
    1000,
]
comptime MAX_ROWS = 1000
comptime ROWS_PAST_THE_END = 256
comptime CANARY = BFloat16(12352)
comptime THREADS = 256
comptime TOLERANCE = 1e-2
"""Of the relative error in the L2 norm: BF16 rounds by up to 2^-9, twice."""


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
    features: Int, depth: Int, has_bias: Bool
](
    output: TensorPointer[Float32],
    x: TensorPointer[BFloat16],
    weight: TensorPointer[BFloat16],
    bias: TensorPointer[BFloat16],
    rows: Int64,
):
    """Computes one element of the layer a thread, in float32."""
    var i = Int(global_idx.x)
    if i >= Int(rows) * features:
        return
    var row, feature = divmod(i, features)
    var total = Float32(0)
    for k in range(depth):
        total += (
            x[unsafe_offset=row * depth + k].cast[.float32]()
            * weight[unsafe_offset=feature * depth + k].cast[.float32]()
        )
    comptime if has_bias:
        total += bias[unsafe_offset=feature].cast[.float32]()
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


def test_layer[
    features: Int, depth: Int, has_bias: Bool
](ctx: DeviceContext) raises:
    """Runs a layer with every number of rows."""
    comptime allocated = (MAX_ROWS + ROWS_PAST_THE_END) * features
    var x = random_tensor(ctx, MAX_ROWS * depth, 1)
    var weight = random_tensor(ctx, features * depth, 2)
    var bias = random_tensor(ctx, features, 3)
    var output = ctx.enqueue_create_buffer[.bfloat16](allocated)
    var output_host = ctx.enqueue_create_host_buffer[.bfloat16](allocated)
    var expected = ctx.enqueue_create_buffer[.float32](MAX_ROWS * features)
    var expected_host = ctx.enqueue_create_host_buffer[.float32](
        MAX_ROWS * features
    )
    # Rows do not depend on each other, so one run is every case's reference.
    ctx.enqueue_function[reference_kernel[features, depth, has_bias]](
        pointer(expected),
        pointer(x),
        pointer(weight),
        pointer(bias),
        Int64(MAX_ROWS),
        grid_dim=ceildiv(MAX_ROWS * features, THREADS),
        block_dim=THREADS,
    )
    expected.enqueue_copy_to(expected_host)

    for rows in materialize[ROW_COUNTS]():
        output.enqueue_fill(CANARY)
        dense_linear_gpu(
            LinearProblem[features, depth, has_bias](
                pointer(output),
                pointer(x),
                pointer(weight),
                pointer(bias),
                rows=rows,
            ),
            ctx,
        )
        output.enqueue_copy_to(output_host)
        ctx.synchronize()

        var name = String(t"{features} x {depth}, bias {has_bias}, {rows} rows")
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
    print(t"{features} x {depth}, bias {has_bias}: passed")


def main() raises:
    with DeviceContext() as ctx:
        test_layer[5120, 2880, True](ctx)
        test_layer[2880, 4096, True](ctx)
        test_layer[32, 2880, True](ctx)
        test_layer[128, 2880, True](ctx)
        test_layer[128, 2880, False](ctx)
        # The last tile and the last step are not whole.
        test_layer[1240, 424, True](ctx)
