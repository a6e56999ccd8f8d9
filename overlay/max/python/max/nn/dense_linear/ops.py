# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Graph ops for BF16 linear layers that write nothing but their output's rows.

MAX's own matmul for Hopper GPUs also writes zeros past the end of an output whose rows are no
multiple of the kernel's tile, into whatever tensor follows it in memory. Its grouped matmul does
not compile for Hopper GPUs where a graph calls it.

The ops come from the ``dense_linear`` kernel package, so the graph that calls them loads it:
``Graph(..., custom_extensions=[kernel_package_path()])``.
"""

from __future__ import annotations

from pathlib import Path

from max.dtype import DType
from max.graph import TensorType, TensorValue, ops

from max.nn.kernel_package import find_kernel_package
from max.nn.op_checks import check_devices, check_dim, check_tensor, static_dim

DEPTH_MULTIPLE = 8
"""The K of grouped layers is a multiple of this: TMA reads rows that start at 16 bytes."""


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


def grouped_linear(
    x: TensorValue,
    weight: TensorValue,
    expert_start_indices: TensorValue,
    expert_ids: TensorValue,
) -> TensorValue:
    """Multiplies rows that are grouped by expert by their experts' matrices, transposed.

    Rows ``[expert_start_indices[e], expert_start_indices[e + 1])`` meet the matrix of expert
    ``expert_ids[e]``, accumulating in float32. ``mxfp4_moe_route`` makes both tables.

    Args:
        x: bfloat16 ``[R, K]``, K a multiple of 8.
        weight: bfloat16 ``[E, N, K]``, all known when the graph is built.
        expert_start_indices: uint32 ``[E + 1]``, not descending, from 0 to ``R``.
        expert_ids: int32 ``[E]``, each expert once.

    Returns:
        bfloat16 ``[R, N]``.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    op = "grouped_linear"
    x = check_tensor(op, "x", x, DType.bfloat16, 2)
    weight = check_tensor(op, "weight", weight, DType.bfloat16, 3)
    starts = check_tensor(op, "expert_start_indices", expert_start_indices, DType.uint32, 1)
    ids = check_tensor(op, "expert_ids", expert_ids, DType.int32, 1)
    experts, features, depth = (static_dim(op, "weight", weight, axis) for axis in range(3))
    if experts == 0 or features == 0 or depth == 0:
        raise ValueError(f"{op}: 'weight' of shape {list(weight.shape)} is empty.")
    if depth % DEPTH_MULTIPLE:
        raise ValueError(
            f"{op}: 'weight' of shape {list(weight.shape)} has K = {depth}; K must be a multiple "
            f"of {DEPTH_MULTIPLE}, for rows that start at 16 bytes."
        )
    check_dim(op, "x", 1, x, depth, "the K of 'weight'")
    check_dim(op, "expert_start_indices", 0, starts, experts + 1, "one more than 'weight' has")
    check_dim(op, "expert_ids", 0, ids, experts, "the experts of 'weight'")
    operands = {"x": x, "weight": weight, "expert_start_indices": starts, "expert_ids": ids}
    device = check_devices(op, operands)
    return ops.custom(
        op,
        device=device,
        values=list(operands.values()),
        out_types=[TensorType(DType.bfloat16, [x.shape[0], features], device)],
        parameters={"experts": experts, "features": features, "depth": depth},
    )[0].tensor
