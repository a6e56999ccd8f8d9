# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""`x @ weight.T + bias` in BF16, writing the output's rows and nothing else.

Upstream's SM90 matmul stores whole tiles: where the output's rows are no
multiple of the tile's height, it writes zeros past the end of the tensor. An
epilogue that stores each element itself is called for the rows that exist, and
then the kernel stores nothing of its own. So one is passed here, with or
without a bias.

The kernels hand the epilogue a product that is rounded to BF16 already. The
bias is added to that in float32 and the sum is rounded again, which is what a
BF16 matmul followed by a BF16 addition gives; the specification does the same.
"""

from std.math import gcd
from std.memory import Pointer
from std.sys import size_of

from layout import Coord, Idx, TileTensor, row_major
from linalg.matmul.gpu import _matmul_gpu
from max.algorithm.functional import sync_parallelize
from max.gpu.host import DeviceContext

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
        comptime bytes = gcd(alignment, Self.features) * size_of[BFloat16]()
        var value = product
        comptime if Self.has_bias:
            value = (
                product.cast[.float32]()
                + self.bias.unsafe_load[width=width, alignment=bytes](
                    feature
                ).cast[.float32]()
            ).cast[.bfloat16]()
        self.output.unsafe_store[alignment=bytes](
            row * Self.features + feature, value
        )


def dense_linear_gpu[
    features: Int, depth: Int, has_bias: Bool, //
](problem: LinearProblem[features, depth, has_bias], ctx: DeviceContext) raises:
    """Enqueues the layer on a GPU; without rows, nothing.

    Parameters:
        features: N.
        depth: K.
        has_bias: Whether there is a bias to add.

    Args:
        problem: The operands.
        ctx: The device.

    Raises:
        Error: If a launch fails.
    """
    if problem.rows == 0:
        return

    @__parameter
    @inline(.always)
    @__copy_capture(problem)
    def epilogue[
        dtype: DType, width: SIMDLength, *, alignment: Int = 1
    ](at: Coord, product: SIMD[dtype, width]):
        problem.store[alignment=alignment](
            Int(at[0].value()),
            Int(at[1].value()),
            rebind[SIMD[.bfloat16, width]](product),
        )

    _matmul_gpu[transpose_b=True, elementwise_lambda_fn=epilogue](
        TileTensor(problem.output, row_major(problem.rows, Idx[features])),
        TileTensor(problem.x, row_major(problem.rows, Idx[depth])).as_imm(),
        TileTensor(
            problem.weight, row_major(Idx[features], Idx[depth])
        ).as_imm(),
        ctx,
    )


def dense_linear_cpu[
    features: Int, depth: Int, has_bias: Bool, //
](problem: LinearProblem[features, depth, has_bias]) raises:
    """Runs the layer on the CPU: the executable specification.

    Parameters:
        features: N.
        depth: K.
        has_bias: Whether there is a bias to add.

    Args:
        problem: The operands.

    Raises:
        Error: If the work cannot be shared out to threads.
    """

    def feature_column(feature: Int) {imm}:
        for row in range(problem.rows):
            var sum = Float32(0)
            for k in range(depth):
                sum += (
                    problem.x[unsafe_offset=row * depth + k].cast[.float32]()
                    * problem.weight[unsafe_offset=feature * depth + k].cast[
                        .float32
                    ]()
                )
            problem.store[alignment=1](row, feature, sum.cast[.bfloat16]())

    sync_parallelize(feature_column, features)
