# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""MXFP4 of the OCP Microscaling Formats v1.0 in NumPy, exact, and BF16 rounding.

A packed byte holds two E2M1 codes, the even K index in the low nibble; one E8M0 scale covers a
block of 32 values along K. A value is ``E2M1 * 2**(scale - 127)``; scale 255 is NaN.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
Float32Array: TypeAlias = npt.NDArray[np.float32]
Uint8Array: TypeAlias = npt.NDArray[np.uint8]
Uint16Array: TypeAlias = npt.NDArray[np.uint16]

BLOCK = 32
"""Values along K that share one scale."""

_E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)

E2M1: Float32Array = np.array(
    [*_E2M1_MAGNITUDES, *(-value for value in _E2M1_MAGNITUDES)], dtype=np.float32
)
"""The 16 values of E2M1 by code; code 8 is minus zero."""


@cache
def scale_table() -> npt.NDArray[np.float64]:
    """The 256 values of E8M0, float64 ``[256]``: ``2**(s - 127)``, and NaN for 255."""
    table = np.ldexp(1.0, np.arange(256) - 127)
    table[255] = np.nan
    return table


@cache
def value_table() -> Float32Array:
    """Every scale byte times every code, float32 ``[256, 16]``.

    Exact where float32 can hold the product (which includes all subnormals that occur); a product
    of 2**128 or more is an infinity of its sign.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return (scale_table()[:, None] * E2M1.astype(np.float64)[None, :]).astype(np.float32)


@cache
def _pair_table() -> Float32Array:
    """Every scale byte times every packed byte, float32 ``[256, 256, 2]``, even K index first."""
    byte = np.arange(256)
    return np.stack([value_table()[:, byte & 15], value_table()[:, byte >> 4]], axis=-1)


def dequantize(blocks: Uint8Array, scales: Uint8Array) -> Float32Array:
    """Expand packed MXFP4 to float32, exactly.

    Args:
        blocks: uint8 ``[..., K / 2]``, two codes a byte, the even K index in the low nibble.
        scales: uint8 ``[..., K / 32]``, one E8M0 scale a block of 32.

    Returns:
        float32 ``[..., K]``.

    Raises:
        ValueError: a dtype is not uint8, or the shapes do not belong together.
    """
    if blocks.dtype != np.uint8 or scales.dtype != np.uint8:
        raise ValueError(f"blocks and scales are uint8, not {blocks.dtype} and {scales.dtype}")
    if (
        blocks.ndim == 0
        or blocks.shape[:-1] != scales.shape[:-1]
        or blocks.shape[-1] * 2 != scales.shape[-1] * BLOCK
    ):
        raise ValueError(f"blocks {blocks.shape} and scales {scales.shape} do not match")
    grouped = blocks.reshape(*scales.shape, BLOCK // 2)
    index = scales[..., None].astype(np.intp) * 256 + grouped
    values: Float32Array = np.take(_pair_table().reshape(-1, 2), index, axis=0)
    return values.reshape(*blocks.shape[:-1], blocks.shape[-1] * 2)


def to_bf16_bits(values: FloatArray) -> Uint16Array:
    """Round to BF16, nearest and ties to even, and return its bits as uint16 of the same shape.

    Subnormals are kept, overflow gives an infinity, and a NaN stays a (quiet) NaN. Values are
    taken as float32: a float64 is first rounded to float32 towards the odd neighbour, so that it is
    not rounded twice.
    """
    single = _float32_round_to_odd(values) if values.dtype == np.float64 else values
    bits = np.ascontiguousarray(single, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    quiet_nan = (bits >> np.uint64(16)) | np.uint64(0x40)
    result = np.where(np.isnan(single), quiet_nan, rounded)
    return result.astype(np.uint16).reshape(values.shape)


def from_bf16_bits(bits: Uint16Array) -> Float32Array:
    """The float32 values of BF16 bits, exact; same shape."""
    wide = np.ascontiguousarray(bits, dtype=np.uint16).astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32).reshape(bits.shape)


def round_bf16(values: FloatArray) -> Float32Array:
    """Round to the nearest BF16 value, ties to even, as float32 of the same shape."""
    return from_bf16_bits(to_bf16_bits(values))


def _float32_round_to_odd(values: FloatArray) -> Float32Array:
    """Round float64 to float32 such that a later rounding to fewer bits is a correct one."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        nearest = values.astype(np.float32)
        widened = nearest.astype(np.float64)
        # Step back to the neighbour towards zero, then set the last bit when anything was lost.
        overshoot = np.abs(widened) > np.abs(values)
        truncated = np.where(overshoot, np.nextafter(nearest, np.float32(0)), nearest)
    inexact = (widened != values) & ~np.isnan(values)
    bits = np.ascontiguousarray(truncated, dtype=np.float32).view(np.uint32)
    odd: Float32Array = (bits | inexact.astype(np.uint32)).view(np.float32)
    return odd
