# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The dense projections of gpt-oss: q, k and v, attention output, router and ``lm_head``.

On a Hopper GPU they use the ``dense_linear`` op, since MAX's own matmul for it writes past the
end of its output. Everywhere else they are MAX's layers as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from max.dtype import DType
from max.graph import BufferValue, TensorValue, ops
from max.nn.linear import ColumnParallelLinear, Linear
from max.nn.stacked_linear import StackedLinear

from max.nn.dense_linear import dense_linear

from ..quantization_format import runs_on_hopper


def project(layer: Linear | StackedLinear, x: TensorValue) -> TensorValue:
    """Applies a linear layer on the device of ``x``.

    Args:
        layer: A layer of in-dimension ``K`` and out-dimension ``N``.
        x: ``[T, K]``.

    Returns:
        ``[T, N]``.
    """
    if not (x.dtype == DType.bfloat16 and runs_on_hopper(x.device)):
        return layer(x)
    weight: TensorValue
    bias: TensorValue | None
    if isinstance(layer, StackedLinear):
        weight, bias = layer.stacked_weight, layer.stacked_bias
    else:
        weight, bias = layer.weight, layer.bias
    return dense_linear(x, weight.to(x.device), None if bias is None else bias.to(x.device))


class OutputProjection(ColumnParallelLinear):
    """``lm_head``: each device's rows of the vocabulary through :func:`project`."""

    def __call__(  # type: ignore[override]
        self, x: Sequence[TensorValue], signal_buffers: Iterable[BufferValue]
    ) -> list[TensorValue]:
        """Computes the logits.

        Args:
            x: bfloat16 ``[T, H]`` on each device.
            signal_buffers: What the devices gather through; one device needs none.

        Returns:
            bfloat16 ``[T, V]`` on each device.
        """
        parts = [
            project(layer, hidden)
            for layer, hidden in zip(self.distributed_linear_layers, x, strict=True)
        ]
        if len(parts) == 1:
            return parts
        return ops.allgather(parts, signal_buffers, axis=-1)
