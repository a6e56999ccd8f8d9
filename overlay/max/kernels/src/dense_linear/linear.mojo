# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""`x @ weight.T + bias` in BF16, writing the output's rows and nothing else.

Upstream's SM90 matmul stores whole tiles: where the output's rows are no
multiple of the tile's height, it writes zeros past the end of the tensor. An
epilogue that stores each element itself is called for the rows that exist, and
then the kernel stores nothing of its own. So one is passed here, with or
without a bias.

From 2 to 64 rows its tiles leave most of a GPU idle; those go to a kernel of
ours, `few_rows_sm90`.
"""

from layout import Coord, Idx, TileTensor, row_major
from linalg.matmul.gpu import _matmul_gpu
from max.algorithm.functional import sync_parallelize
from max.gpu.host import DeviceContext

from .few_rows_sm90 import few_rows_linear_sm90, takes_few_rows
from .problem import LinearProblem


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
    if takes_few_rows(problem):
        few_rows_linear_sm90(problem, ctx)
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
