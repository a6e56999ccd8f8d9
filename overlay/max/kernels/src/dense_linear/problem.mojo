# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The operands of a linear layer, and what becomes of its products.

Kernels hand over products that are rounded to BF16 already. The bias is added
to that in float32 and the sum is rounded again, which is what a BF16 matmul
followed by a BF16 addition gives; the specification does the same.
"""

from std.math import gcd
from std.memory import Pointer
from std.sys import size_of

comptime TensorPointer[T: AnyType] = Pointer[T, MutUntrackedOrigin]
"""Where a tensor begins. The graph keeps the tensor alive.

Parameters:
    T: The type of its elements.
"""


struct LinearProblem[features: Int, depth: Int, has_bias: Bool](
    TrivialRegisterPassable
):
    """The operands of one layer.

    Parameters:
        features: N.
        depth: K.
        has_bias: Whether there is a bias to add.
    """

    var output: TensorPointer[BFloat16]
    """BF16 `[rows, N]`."""
    var x: TensorPointer[BFloat16]
    """BF16 `[rows, K]`."""
    var weight: TensorPointer[BFloat16]
    """BF16 `[N, K]`."""
    var bias: TensorPointer[BFloat16]
    """BF16 `[N]`; not read without `has_bias`."""
    var rows: Int
    """Rows of the output, from 0."""

    @inline(.always)
    def __init__(
        out self,
        output: TensorPointer[BFloat16],
        x: TensorPointer[BFloat16],
        weight: TensorPointer[BFloat16],
        bias: TensorPointer[BFloat16],
        *,
        rows: Int,
    ):
        """Names the operands of a layer.

        Args:
            output: BF16 `[rows, N]`.
            x: BF16 `[rows, K]`.
            weight: BF16 `[N, K]`.
            bias: BF16 `[N]`; not read without `has_bias`.
            rows: Rows of the output, from 0.
        """
        self.output = output
        self.x = x
        self.weight = weight
        self.bias = bias
        self.rows = rows

    @inline(.always)
    def store[
        width: SIMDLength, //, alignment: Int
    ](self, row: Int, feature: Int, product: SIMD[.bfloat16, width]):
        """Adds the bias to neighbouring features of a row and stores them.

        Parameters:
            width: Features.
            alignment: Features that `feature` is known to be a multiple of.

        Args:
            row: The row.
            feature: The first feature.
            product: The products, rounded.
        """
        var bias = SIMD[.bfloat16, width](0)
        comptime if Self.has_bias:
            bias = self.load_bias[width, alignment=alignment](feature)
        self.store_biased[alignment=alignment](row, feature, product, bias)

    @inline(.always)
    def load_bias[
        width: SIMDLength, *, alignment: Int
    ](self, feature: Int) -> SIMD[.bfloat16, width]:
        """Loads the bias of neighbouring features.

        Parameters:
            width: Features.
            alignment: Features that `feature` is known to be a multiple of.

        Args:
            feature: The first feature.

        Returns:
            The bias.
        """
        comptime bytes = gcd(alignment, Self.features) * size_of[BFloat16]()
        return self.bias.unsafe_load[width=width, alignment=bytes](feature)

    @inline(.always)
    def store_biased[
        width: SIMDLength, //, alignment: Int
    ](
        self,
        row: Int,
        feature: Int,
        product: SIMD[.bfloat16, width],
        bias: SIMD[.bfloat16, width],
    ):
        """Adds a bias to neighbouring features of a row and stores them.

        Parameters:
            width: Features.
            alignment: Features that `feature` is known to be a multiple of.

        Args:
            row: The row.
            feature: The first feature.
            product: The products, rounded.
            bias: The bias; not read without `has_bias`.
        """
        comptime bytes = gcd(alignment, Self.features) * size_of[BFloat16]()
        var value = product
        comptime if Self.has_bias:
            value = (product.cast[.float32]() + bias.cast[.float32]()).cast[
                .bfloat16
            ]()
        self.output.unsafe_store[alignment=bytes](
            row * Self.features + feature, value
        )
