# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Checks of a custom op's operands while a graph is built.

Each raises ``ValueError`` and names the op and the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

from max.dtype import DType
from max.graph import DeviceRef, Dim, DimLike, StaticDim, TensorValue


def check_tensor(op: str, name: str, value: TensorValue, dtype: DType, rank: int) -> TensorValue:
    """Rejects another dtype or rank, and returns the tensor."""
    value = TensorValue(value)
    if value.dtype != dtype:
        raise ValueError(f"{op}: '{name}' is {value.dtype.name}; it must be {dtype.name}.")
    if value.rank != rank:
        raise ValueError(
            f"{op}: '{name}' has shape {list(value.shape)}; it takes a tensor of rank {rank}."
        )
    return value


def check_dim(
    op: str, name: str, axis: int, value: TensorValue, expected: DimLike, of: str
) -> None:
    """Rejects a dimension that is known to differ; symbolic ones meet at run time."""
    dim, expected = value.shape[axis], Dim(expected)
    if isinstance(dim, StaticDim) and isinstance(expected, StaticDim) and dim != expected:
        raise ValueError(
            f"{op}: dimension {axis} of '{name}' is {dim} in shape {list(value.shape)}; "
            f"it must be {expected}, {of}."
        )


def check_devices(op: str, values: Mapping[str, TensorValue]) -> DeviceRef:
    """Rejects tensors on several devices, and returns the one device."""
    first, *others = values
    device = values[first].device
    for name in others:
        if values[name].device != device:
            raise ValueError(
                f"{op}: '{name}' is on {values[name].device} and '{first}' on {device}; "
                "move all tensors to one device."
            )
    return device


def static_dim(op: str, name: str, value: TensorValue, axis: int) -> int:
    """Rejects a symbolic dimension, and returns the number."""
    dim = value.shape[axis]
    if not isinstance(dim, StaticDim):
        raise ValueError(
            f"{op}: dimension {axis} of '{name}' is the symbolic {dim}; "
            "weights need a size known when the graph is built."
        )
    return int(dim)
