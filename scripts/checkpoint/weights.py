# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Random values of a tensor, slab by slab.

Every slab (one expert of an expert stack, 512 rows of a matrix) has a stream of random numbers of
its own, seeded by the checkpoint's seed, the tensor's name and the slab's number. So a tensor does
not depend on other options, and slabs can be made in any order on any number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from math import prod
from statistics import NormalDist
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from checkpoint.shapes import Kind, TensorSpec

Array: TypeAlias = npt.NDArray[Any]

_ROWS = 512
_E8M0_BIAS = 127
_SCALE_SPREAD = 0.8
"""Standard deviation of a scale's exponent: neighbouring blocks differ, as in trained weights."""

# Standard deviation and mean of the tensors that no sum over K runs through.
_PLAIN = {
    Kind.EMBEDDING: (1.0, 0.0),
    Kind.NORM: (0.1, 1.0),
    Kind.BIAS: (0.1, 0.0),
    Kind.SINK: (1.0, 0.0),
}


class Slab(NamedTuple):
    """A run of rows of a tensor: its number, its rows, and its offset in the tensor's bytes."""

    number: int
    rows: int
    offset: int


def slabs(spec: TensorSpec) -> Iterator[Slab]:
    """The slabs of a tensor, in the order of its bytes."""
    rows = spec.shape[0]
    step = 1 if len(spec.shape) > 2 else _ROWS
    row_bytes = spec.nbytes // rows
    for number, start in enumerate(range(0, rows, step)):
        yield Slab(number, min(step, rows - start), start * row_bytes)


def slab_values(spec: TensorSpec, slab: Slab, seed: int) -> Array:
    """The values of one slab as they are stored: uint8, or uint16 for the bits of BF16."""
    count = slab.rows * prod(spec.shape[1:])
    digest = hashlib.sha256(f"{seed}/{spec.name}/{slab.number}".encode()).digest()
    generator = np.random.Generator(np.random.SFC64(int.from_bytes(digest[:16], "little")))
    return _values(spec, count)(generator)


def _values(spec: TensorSpec, count: int) -> Callable[[np.random.Generator], Array]:
    if spec.kind is Kind.BLOCKS:
        return lambda generator: _random_bits(generator, count, np.uint8)
    if spec.kind is Kind.SCALES:
        scales = scale_table(spec.gain / spec.fan_in**0.5)
        return lambda generator: scales[_random_bits(generator, count, np.uint8)]
    std, mean = _PLAIN.get(spec.kind, (spec.gain / spec.fan_in**0.5, 0.0))
    normals = normal_table(std, mean)
    return lambda generator: normals[_random_bits(generator, count, np.uint16)]


def _random_bits(generator: np.random.Generator, count: int, dtype: type) -> Array:
    size = np.dtype(dtype).itemsize
    words = -(-count * size // 8)
    raw = generator.integers(0, 2**64, size=words, dtype=np.uint64, endpoint=False)
    return raw.view(dtype)[:count]


@cache
def _normal_quantiles(count: int) -> npt.NDArray[np.float64]:
    """``count`` quantiles of the normal distribution, of standard deviation one."""
    inverse = NormalDist().inv_cdf
    quantiles = np.array([inverse((index + 0.5) / count) for index in range(count)])
    unit: npt.NDArray[np.float64] = quantiles / quantiles.std()
    return unit


@cache
def normal_table(std: float, mean: float) -> npt.NDArray[np.uint16]:
    """Normal values as BF16 bits, uint16 ``[65536]``; a uniform index draws from them."""
    values = (mean + std * _normal_quantiles(65536)).astype(np.float32)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


@cache
def scale_table(std: float) -> npt.NDArray[np.uint8]:
    """E8M0 scales, uint8 ``[256]``, for weights of standard deviation ``std``.

    A uniform index draws one; the exponents are normally distributed about the one that gives
    uniformly random E2M1 codes the wanted standard deviation.
    """
    magnitudes = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    wanted = (std / np.sqrt(np.mean(magnitudes**2))) ** 2
    low, high = np.log2(wanted) - 16, np.log2(wanted) + 16
    for _ in range(40):
        centre = (low + high) / 2
        exponents = np.rint(centre + _SCALE_SPREAD * _normal_quantiles(256))
        low, high = (centre, high) if np.mean(4.0**exponents) < wanted else (low, centre)
    biased: npt.NDArray[np.uint8] = (exponents + _E8M0_BIAS).astype(np.uint8)
    return biased
