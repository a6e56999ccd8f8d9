# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Tensors on the host and on the GPU, filled at random, and compared."""

from std.math import isnan, sqrt
from std.random import random_float64, random_ui64
from std.testing import assert_true

from max.gpu.host import DeviceBuffer, DeviceContext, HostBuffer

from mxfp4_moe.kernel_argument import TensorPointer


def device_pointer[
    dtype: DType
](buffer: DeviceBuffer[dtype]) -> TensorPointer[Scalar[dtype]]:
    return (
        buffer.unsafe_ptr()
        .unsafe_mut_cast[True]()
        .unsafe_origin_cast[MutUntrackedOrigin]()
    )


struct Tensor[dtype: DType](Movable):
    """One tensor's bytes on the host and on the GPU."""

    var host: HostBuffer[Self.dtype]
    var device: DeviceBuffer[Self.dtype]

    def __init__(out self, ctx: DeviceContext, size: Int) raises:
        self.host = ctx.enqueue_create_host_buffer[Self.dtype](max(size, 1))
        self.device = ctx.enqueue_create_buffer[Self.dtype](max(size, 1))
        ctx.synchronize()

    def fill[
        Next: def() raises -> Scalar[Self.dtype]
    ](mut self, next: Next) raises:
        """Fills both copies."""
        for i in range(len(self.host)):
            self.host[i] = next()
        self.device.enqueue_copy_from(self.host)

    def on_host(self) -> TensorPointer[Scalar[Self.dtype]]:
        return (
            self.host.unsafe_ptr()
            .unsafe_mut_cast[True]()
            .unsafe_origin_cast[MutUntrackedOrigin]()
        )

    def on_device(self) -> TensorPointer[Scalar[Self.dtype]]:
        return device_pointer(self.device)


def normal() raises -> Float64:
    """Draws roughly a normal number: the sum of twelve uniform ones."""
    var total = 0.0
    for _ in range(12):
        total += random_float64()
    return total - 6.0


def random_bf16() raises -> BFloat16:
    return normal().cast[.bfloat16]()


def random_byte() raises -> UInt8:
    return UInt8(random_ui64(0, 255))


def random_scale() raises -> UInt8:
    # Around 2^-5, as checkpoints have them, so that sums stay near one.
    return UInt8(random_ui64(118, 124))


def compare[
    dtype: DType
](
    name: String,
    expected: Tensor[dtype],
    actual: Tensor[dtype],
    size: Int,
    tolerance: Float64,
    ctx: DeviceContext,
) raises:
    """Checks the relative L2 error, and that no element differs alone.

    Rounding to BF16 can go the other way, which is not counted for single elements.
    """
    var got = ctx.enqueue_create_host_buffer[dtype](max(size, 1))
    actual.device.enqueue_copy_to(got)
    ctx.synchronize()
    var error = 0.0
    var norm = 0.0
    var worst = 0.0
    for i in range(size):
        var want = expected.host[i].cast[.float64]()
        var have = got[i].cast[.float64]()
        assert_true(
            isnan(want) == isnan(have),
            String(t"{name}: element {i} is {have} and should be {want}"),
        )
        if isnan(want):
            continue
        error += (have - want) ** 2
        norm += want**2
        worst = max(worst, abs(have - want) - abs(want) / 128)
    var scale = sqrt(norm / Float64(max(size, 1)))
    var relative = sqrt(error / norm) if norm > 0 else sqrt(error)
    print(
        t"  {name}: relative L2 error {relative}, worst"
        t" {worst / (scale + 1e-30)} of RMS"
    )
    assert_true(
        relative <= tolerance, String(t"{name}: relative L2 error {relative}")
    )
    assert_true(
        worst <= 0.05 * scale + 1e-30,
        String(t"{name}: one element is off by {worst}"),
    )


def poison[dtype: DType](tensor: Tensor[dtype], ctx: DeviceContext) raises:
    var nan = Scalar[dtype](0) / Scalar[dtype](0)
    for i in range(len(tensor.host)):
        tensor.host[i] = nan
    tensor.device.enqueue_copy_from(tensor.host)
    ctx.synchronize()
