# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A graph op for BF16 linear layers that writes nothing but its output's rows.

MAX's own matmul for Hopper GPUs also writes zeros past the end of an output whose rows are no
multiple of the kernel's tile, into whatever tensor follows it in memory.

The op comes from the ``dense_linear`` kernel package, so the graph that calls it loads it:
``Graph(..., custom_extensions=[kernel_package_path()])``.
"""

from __future__ import annotations

from pathlib import Path

from max.dtype import DType
from max.graph import TensorType, TensorValue, ops

from max.nn.kernel_package import find_kernel_package
from max.nn.op_checks import check_devices, check_dim, check_tensor, static_dim


def kernel_package_path() -> Path:
    """Returns the path of the ``dense_linear`` kernel package, for ``custom_extensions``.

    Raises:
        KernelPackageError: If the package is missing, stale, or was built for another
            version of MAX.
    """
    return find_kernel_package("dense_linear")


def dense_linear(
    x: TensorValue, weight: TensorValue, bias: TensorValue | None = None
) -> TensorValue:
    """Computes ``x @ weight.T + bias``.

    The product is accumulated in float32 and rounded; the bias is added to that in float32 and
    the sum is rounded again, as a BF16 matmul and a BF16 addition do.

    Args:
        x: bfloat16 ``[T, K]``.
        weight: bfloat16 ``[N, K]``, both known when the graph is built.
        bias: bfloat16 ``[N]``, or None.

    Returns:
        bfloat16 ``[T, N]``.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    op = "dense_linear"
    x = check_tensor(op, "x", x, DType.bfloat16, 2)
    weight = check_tensor(op, "weight", weight, DType.bfloat16, 2)
    features = static_dim(op, "weight", weight, 0)
    depth = static_dim(op, "weight", weight, 1)
    if features == 0 or depth == 0:
        raise ValueError(f"{op}: 'weight' of shape {list(weight.shape)} is empty.")
    check_dim(op, "x", 1, x, depth, "the K of 'weight'")
    operands = {"x": x, "weight": weight}
    if bias is not None:
        bias = check_tensor(op, "bias", bias, DType.bfloat16, 1)
        check_dim(op, "bias", 0, bias, features, "the N of 'weight'")
        operands["bias"] = bias
    device = check_devices(op, operands)
    return ops.custom(
        op if bias is not None else "dense_linear_no_bias",
        device=device,
        values=list(operands.values()),
        out_types=[TensorType(DType.bfloat16, [x.shape[0], features], device)],
        parameters={"features": features, "depth": depth},
    )[0].tensor
