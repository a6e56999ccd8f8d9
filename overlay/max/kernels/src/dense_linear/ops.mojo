# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The graph operations of this package.

Shapes use T for tokens, N for the features of a layer and K for its depth, and
where rows are grouped by expert R for the rows and E for the experts.
Shapes and dtypes are checked where the graph is built, in
`max.nn.dense_linear`.
"""

import extensibility as compiler
from extensibility import InputTensor, ManagedTensorSlice, OutputTensor
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from .grouped import GroupedProblem, grouped_linear_cpu, grouped_linear_gpu
from .linear import dense_linear_cpu, dense_linear_gpu
from .problem import LinearProblem, TensorPointer


@inline(.always)
def _pointer(tensor: ManagedTensorSlice) -> TensorPointer[Scalar[tensor.dtype]]:
    return tensor.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()


@inline(.always)
def _run[
    features: Int, depth: Int, has_bias: Bool, //, target: StaticString
](problem: LinearProblem[features, depth, has_bias], ctx: DeviceContext) raises:
    comptime if is_cpu[target]():
        dense_linear_cpu(problem)
    else:
        dense_linear_gpu(problem, ctx)


@compiler.register("dense_linear")
struct DenseLinear:
    """A linear layer with a bias."""

    @staticmethod
    def execute[
        target: StaticString, features: Int, depth: Int
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        x: InputTensor[dtype=.bfloat16, rank=2, ...],
        weight: InputTensor[dtype=.bfloat16, rank=2, ...],
        bias: InputTensor[dtype=.bfloat16, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `output = x @ weight.T + bias`.

        Parameters:
            target: The device kind.
            features: N.
            depth: K.

        Args:
            output: `[T, N]`.
            x: `[T, K]`.
            weight: `[N, K]`.
            bias: `[N]`.
            ctx: The device.

        Raises:
            Error: If a launch fails.
        """
        _run[target](
            LinearProblem[features, depth, True](
                _pointer(output),
                _pointer(x),
                _pointer(weight),
                _pointer(bias),
                rows=output.dim_size(0),
            ),
            ctx,
        )


@compiler.register("dense_linear_no_bias")
struct DenseLinearNoBias:
    """A linear layer without a bias."""

    @staticmethod
    def execute[
        target: StaticString, features: Int, depth: Int
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        x: InputTensor[dtype=.bfloat16, rank=2, ...],
        weight: InputTensor[dtype=.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `output = x @ weight.T`.

        Parameters:
            target: The device kind.
            features: N.
            depth: K.

        Args:
            output: `[T, N]`.
            x: `[T, K]`.
            weight: `[N, K]`.
            ctx: The device.

        Raises:
            Error: If a launch fails.
        """
        _run[target](
            LinearProblem[features, depth, False](
                _pointer(output),
                _pointer(x),
                _pointer(weight),
                # No bias is read.
                _pointer(weight),
                rows=output.dim_size(0),
            ),
            ctx,
        )


@compiler.register("grouped_linear")
struct GroupedLinear:
    """A linear layer of each expert, without a bias."""

    @staticmethod
    def execute[
        target: StaticString, experts: Int, features: Int, depth: Int
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        x: InputTensor[dtype=.bfloat16, rank=2, ...],
        weight: InputTensor[dtype=.bfloat16, rank=3, ...],
        expert_starts: InputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: InputTensor[dtype=.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `output[r] = x[r] @ weight[expert of r].T`.

        Parameters:
            target: The device kind.
            experts: E.
            features: N.
            depth: K.

        Args:
            output: `[R, N]`.
            x: `[R, K]`, grouped by expert.
            weight: `[E, N, K]`.
            expert_starts: `[E + 1]`, from 0 to R.
            expert_ids: `[E]`, 0 to E - 1.
            ctx: The device.

        Raises:
            Error: If a launch fails.
        """
        var problem = GroupedProblem[experts, features, depth](
            _pointer(output),
            _pointer(x),
            _pointer(weight),
            _pointer(expert_starts),
            _pointer(expert_ids),
            rows=output.dim_size(0),
        )
        comptime if is_cpu[target]():
            grouped_linear_cpu(problem)
        else:
            grouped_linear_gpu(problem, ctx)
