# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A linear layer of each expert: rows grouped by expert, weights BF16.

Upstream's grouped matmul is called as its graph op calls it, but for two
things. The output's tensor has an engine with which the kernel compiles, see
`nested_offset`. And the bounds of its grid come from the shapes alone: the op
copies the busiest expert's rows to the host in every step and waits for them,
which no device graph can capture. Blocks that find no rows leave at once.

As in `linear`, an epilogue stores each element of the output's rows.
"""

from std.math import gcd
from std.sys import size_of

from layout import Coord, Idx, TileTensor, row_major
from linalg.grouped_matmul import grouped_matmul
from max.algorithm.functional import sync_parallelize
from max.gpu.host import DeviceContext

from .nested_offset import NestedOffset
from .problem import TensorPointer


struct GroupedProblem[experts: Int, features: Int, depth: Int](
    TrivialRegisterPassable
):
    """The operands of one layer of every expert.

    Rows `[starts[e], starts[e + 1])` meet the matrix of expert `e`. The groups
    hold all rows: `starts[0]` is 0 and `starts[experts]` is `rows`.

    Parameters:
        experts: E.
        features: N.
        depth: K.
    """

    var output: TensorPointer[BFloat16]
    """BF16 `[rows, N]`."""
    var x: TensorPointer[BFloat16]
    """BF16 `[rows, K]`, grouped by expert."""
    var weight: TensorPointer[BFloat16]
    """BF16 `[E, N, K]`."""
    var starts: TensorPointer[UInt32]
    """`[E + 1]`, the first row of each expert, and the end of the last."""
    var expert_ids: TensorPointer[Int32]
    """`[E]`, 0 to E - 1."""
    var rows: Int
    """Rows of the output, from 0."""

    @inline(.always)
    def __init__(
        out self,
        output: TensorPointer[BFloat16],
        x: TensorPointer[BFloat16],
        weight: TensorPointer[BFloat16],
        starts: TensorPointer[UInt32],
        expert_ids: TensorPointer[Int32],
        *,
        rows: Int,
    ):
        """Names the operands of a layer.

        Args:
            output: BF16 `[rows, N]`.
            x: BF16 `[rows, K]`, grouped by expert.
            weight: BF16 `[E, N, K]`.
            starts: `[E + 1]`, the first row of each expert, and the end of the
                last.
            expert_ids: `[E]`, 0 to E - 1.
            rows: Rows of the output, from 0.
        """
        self.output = output
        self.x = x
        self.weight = weight
        self.starts = starts
        self.expert_ids = expert_ids
        self.rows = rows


def grouped_linear_gpu[
    experts: Int, features: Int, depth: Int, //
](problem: GroupedProblem[experts, features, depth], ctx: DeviceContext) raises:
    """Enqueues the layer on a Hopper GPU; without rows, nothing.

    Parameters:
        experts: E.
        features: N.
        depth: K.

    Args:
        problem: The operands.
        ctx: The device.

    Raises:
        Error: If a launch fails.
    """
    if problem.rows == 0:
        return
    var output = problem.output

    @inline(.always)
    def epilogue[
        dtype: DType, width: SIMDLength, *, alignment: Int
    ](at: Coord, product: SIMD[dtype, width]) {var output}:
        output.unsafe_store[
            alignment=gcd(alignment, features) * size_of[BFloat16]()
        ](
            Int(at[0].value()) * features + Int(at[1].value()),
            rebind[SIMD[.bfloat16, width]](product),
        )

    grouped_matmul[has_epilogue_fn=True](
        TileTensor[Engine=NestedOffset](
            problem.output, row_major(problem.rows, Idx[features])
        ),
        TileTensor(problem.x, row_major(problem.rows, Idx[depth])).as_imm(),
        TileTensor(
            problem.weight, row_major(Idx[experts], Idx[features], Idx[depth])
        ).as_imm(),
        TileTensor(problem.starts, row_major(Idx[experts + 1])).as_imm(),
        TileTensor(problem.expert_ids, row_major(Idx[experts])).as_imm(),
        # The tensor for bounds that only the device knows. `host_stats` has
        # them, so it is not read.
        TileTensor(problem.starts, row_major(Idx[2])).as_imm(),
        ctx,
        host_stats=(problem.rows, experts),
        epilogue_fn=epilogue,
    )


def grouped_linear_cpu[
    experts: Int, features: Int, depth: Int, //
](problem: GroupedProblem[experts, features, depth]) raises:
    """Runs the layer on the CPU: the executable specification.

    Parameters:
        experts: E.
        features: N.
        depth: K.

    Args:
        problem: The operands.

    Raises:
        Error: If the work cannot be shared out to threads.
    """

    def feature_column(task: Int) {imm}:
        var group, feature = divmod(task, features)
        var expert = Int(problem.expert_ids[unsafe_offset=group])
        var weight = problem.weight.unsafe_offset(
            (expert * features + feature) * depth
        )
        for row in range(
            Int(problem.starts[unsafe_offset=group]),
            Int(problem.starts[unsafe_offset=group + 1]),
        ):
            var sum = Float32(0)
            for k in range(depth):
                sum += (
                    problem.x[unsafe_offset=row * depth + k].cast[.float32]()
                    * weight[unsafe_offset=k].cast[.float32]()
                )
            problem.output[unsafe_offset=row * features + feature] = sum.cast[
                .bfloat16
            ]()

    sync_parallelize(feature_column, experts * features)
