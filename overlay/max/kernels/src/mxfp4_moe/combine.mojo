# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Sums the weighted results of a token's experts."""

from std.math import ceildiv

from max.algorithm.functional import sync_parallelize
from max.gpu import block_idx, thread_idx
from max.gpu.host import DeviceContext
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)

from .kernel_argument import TensorPointer
from .subnormals import round_to_bf16

comptime _THREADS = 128
comptime _VECTOR = 8
"""Features a thread combines: one 16-byte load of BF16 a slot."""


@inline(.always)
def _combine_vector[
    width: Int, top_k: Int
](
    output: TensorPointer[BFloat16],
    weighted: TensorPointer[BFloat16],
    token: Int,
    feature: Int,
    features: Int,
):
    # Slot order, in float32, rounded once.
    var total = SIMD[.float32, width](0)
    comptime for choice in range(top_k):
        total += weighted.unsafe_load[width=width, alignment=2 * width](
            (token * top_k + choice) * features + feature
        ).cast[.float32]()
    output.unsafe_store[alignment=2 * width](
        token * features + feature, round_to_bf16(total)
    )


def combine_cpu[
    top_k: Int
](
    output: TensorPointer[BFloat16],
    weighted: TensorPointer[BFloat16],
    tokens: Int,
    features: Int,
) raises:
    """Sums each token's results on the CPU.

    Parameters:
        top_k: Choices a token.

    Args:
        output: BF16 `[tokens, features]`.
        weighted: BF16 `[tokens * top_k, features]`, in slot order.
        tokens: Tokens.
        features: Features, a multiple of 8.

    Raises:
        Error: If the work cannot be shared out to threads.
    """

    def token_row(token: Int) {imm}:
        for feature in range(0, features, _VECTOR):
            _combine_vector[_VECTOR, top_k](
                output, weighted, token, feature, features
            )

    sync_parallelize(token_row, tokens)


@__name(t"mxfp4_moe_combine_top{top_k}")
def _combine_kernel[
    top_k: Int
](
    output: TensorPointer[BFloat16],
    weighted: TensorPointer[BFloat16],
    features: Int32,
):
    # The next kernel waits for all of this one before it reads.
    launch_dependent_grids()
    wait_on_dependent_grids()
    var feature = (Int(block_idx.y) * _THREADS + Int(thread_idx.x)) * _VECTOR
    if feature < Int(features):
        _combine_vector[_VECTOR, top_k](
            output, weighted, Int(block_idx.x), feature, Int(features)
        )


def combine_gpu[
    top_k: Int
](
    output: TensorPointer[BFloat16],
    weighted: TensorPointer[BFloat16],
    tokens: Int,
    features: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the sum of each token's results on a GPU.

    Parameters:
        top_k: Choices a token.

    Args:
        output: BF16 `[tokens, features]`.
        weighted: BF16 `[tokens * top_k, features]`, in slot order.
        tokens: Tokens.
        features: Features, a multiple of 8.
        ctx: The device.

    Raises:
        Error: If the launch fails.
    """
    if tokens == 0:
        return
    ctx.enqueue_function[_combine_kernel[top_k]](
        output,
        weighted,
        Int32(features),
        grid_dim=(tokens, ceildiv(features, _THREADS * _VECTOR)),
        block_dim=_THREADS,
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
