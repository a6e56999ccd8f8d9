# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The packed grouped matmul for MAX's own MoE layers, of any architecture.

Their graphs know nothing of the ``mxfp4_moe`` kernel package, so it is loaded where the first
layer asks for it.
"""

from __future__ import annotations

from max.driver import accelerator_architecture_name
from max.dtype import DType
from max.graph import Graph, StaticDim, TensorValue

from .ops import (
    OUTPUT_ROW_MULTIPLE,
    SCALE_BLOCK_SIZE,
    fits_panels,
    kernel_package_path,
    mxfp4_moe_matmul,
    mxfp4_moe_scale_bytes,
    mxfp4_moe_to_panels,
)


def multiplies_packed(x: TensorValue, weight: TensorValue) -> bool:
    """Whether an MXFP4 expert stack is multiplied without expanding it: on Hopper GPUs.

    Args:
        x: ``[R, K]``.
        weight: uint8 ``[E, N, K / 2]``.
    """
    if x.device.is_cpu() or not accelerator_architecture_name().startswith("sm_90"):
        return False
    rows, packed = weight.shape[1], weight.shape[2]
    return (
        x.dtype == DType.bfloat16
        and weight.dtype == DType.uint8
        and isinstance(rows, StaticDim)
        and isinstance(packed, StaticDim)
        and int(rows) % OUTPUT_ROW_MULTIPLE == 0
        and 2 * int(packed) % SCALE_BLOCK_SIZE == 0
    )


def packed_grouped_matmul(
    x: TensorValue,
    weight: TensorValue,
    weight_scale: TensorValue,
    expert_start_indices: TensorValue,
    expert_ids: TensorValue,
) -> TensorValue:
    """Multiplies groups of rows by their experts' packed matrices, transposed.

    A stack whose shape allows it is brought into panels. MAX computes that of weights once,
    when it initializes the model, and no step repeats it.

    Args:
        x: bfloat16 ``[R, K]``.
        weight: uint8 ``[E, N, K / 2]``, two E2M1 codes a byte.
        weight_scale: float8_e8m0fnu or uint8 ``[E, N, K / 32]``.
        expert_start_indices: uint32 ``[A + 1]``, not descending, at most ``R``.
        expert_ids: int32 ``[A]``.

    Returns:
        bfloat16 ``[R, N]``.

    Raises:
        KernelPackageError: If the kernel package is missing, stale, or was built for another
            version of MAX.
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    graph = Graph.current
    path = kernel_package_path()
    if path not in graph.kernel_libraries_paths:
        graph._import_kernels([path])
    blocks, scales = weight.to(x.device), weight_scale.to(x.device)
    if scales.dtype == DType.float8_e8m0fnu:
        scales = mxfp4_moe_scale_bytes(scales)
    in_panels = fits_panels(int(blocks.shape[1]), 2 * int(blocks.shape[2]))
    if in_panels:
        blocks, scales = mxfp4_moe_to_panels(blocks, scales)
    return mxfp4_moe_matmul(
        x, blocks, scales, expert_start_indices, expert_ids, in_panels=in_panels
    )
