# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The ops of the ``dense_linear`` package against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from op_graphs import OpGraphs

from reference.mxfp4 import round_bf16

# Features and depth; each compiles a graph.
WITH_BIAS, WITHOUT_BIAS = (40, 96), (136, 416)

ERROR = 3e-3
"""Rounding to eight bits of mantissa, twice, is off by sqrt(2 / 3) * 2^-9 on average."""


def random_bf16(rng: np.random.Generator, *shape: int) -> npt.NDArray[np.float32]:
    """Normal numbers that BF16 holds."""
    return round_bf16(rng.standard_normal(shape).astype(np.float32))


def assert_near(actual: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.linalg.norm(actual - expected) <= ERROR * np.linalg.norm(expected)


@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 64, 65])
def test_with_a_bias(ops: OpGraphs, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    features, depth = WITH_BIAS
    x, weight = random_bf16(rng, tokens, depth), random_bf16(rng, features, depth)
    bias = 10 * random_bf16(rng, features)
    assert_near(ops.dense_linear(x, weight, bias), x @ weight.T + bias)


@pytest.mark.parametrize("tokens", [0, 1, 2, 5, 64, 65])
def test_without_a_bias(ops: OpGraphs, tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    features, depth = WITHOUT_BIAS
    x, weight = random_bf16(rng, tokens, depth), random_bf16(rng, features, depth)
    assert_near(ops.dense_linear(x, weight), x @ weight.T)


def test_the_product_is_rounded_before_the_bias_is_added(ops: OpGraphs) -> None:
    """As a BF16 matmul and a BF16 addition do it."""
    features, depth = WITH_BIAS
    x, weight = np.zeros((1, depth), np.float32), np.zeros((features, depth), np.float32)
    # 256 + 1 rounds to 256, a tie to the even; then 1 more does so again.
    x[0, :2] = 1
    weight[:, 0], weight[:, 1] = 256, 1
    actual = ops.dense_linear(x, weight, np.ones(features, np.float32))
    np.testing.assert_array_equal(actual, np.full((1, features), 256, np.float32))


GROUPED = (4, 192, 96)
"""Experts, features and depth."""


@pytest.mark.parametrize(
    "counts",
    [[0, 0, 0, 0], [0, 1, 0, 0], [3, 0, 5, 0], [1, 127, 128, 129], [0, 300, 2, 1]],
    ids=str,
)
def test_each_expert_meets_its_rows(ops: OpGraphs, counts: list[int]) -> None:
    rng = np.random.default_rng(sum(counts))
    experts, features, depth = GROUPED
    rows = sum(counts)
    x, weight = random_bf16(rng, rows, depth), random_bf16(rng, experts, features, depth)
    ids = np.array([2, 0, 3, 1], np.int32)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)
    expected = np.zeros((rows, features), np.float32)
    for expert, first, end in zip(ids, starts, starts[1:], strict=False):
        expected[first:end] = x[first:end] @ weight[expert].T
    assert_near(ops.grouped_linear(x, weight, starts, ids), expected)
