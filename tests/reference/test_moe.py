# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The NumPy MoE reference against a second form: token by token, slot by slot, dense weights."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from reference import moe, mxfp4

HIDDEN, WIDTH, EXPERTS, TOP_K = 64, 32, 6, 3


def random_weights(rng: np.random.Generator) -> moe.LayerWeights:
    def packed(n: int, k: int) -> tuple[mxfp4.Uint8Array, mxfp4.Uint8Array]:
        return (
            rng.integers(0, 256, (EXPERTS, n, k // 2), dtype=np.uint8),
            rng.integers(120, 126, (EXPERTS, n, k // 32), dtype=np.uint8),
        )

    gate_up_blocks, gate_up_scales = packed(2 * WIDTH, HIDDEN)
    down_blocks, down_scales = packed(HIDDEN, WIDTH)
    return moe.LayerWeights(
        rng.standard_normal((EXPERTS, HIDDEN)),
        rng.standard_normal(EXPERTS),
        gate_up_blocks,
        gate_up_scales,
        rng.standard_normal((EXPERTS, 2 * WIDTH)),
        down_blocks,
        down_scales,
        rng.standard_normal((EXPERTS, HIDDEN)),
    )


def one_token(x: npt.NDArray[np.float64], weights: moe.LayerWeights) -> npt.NDArray[np.float64]:
    """One token through the layer as the model's paper form states it."""
    scores = weights.router_weight @ x + weights.router_bias
    best = sorted(range(EXPERTS), key=lambda expert: -scores[expert])[:TOP_K]
    total = sum(math.exp(scores[expert]) for expert in best)
    result = np.zeros(HIDDEN)
    for expert in best:
        gate_up = mxfp4.dequantize(weights.gate_up_blocks[expert], weights.gate_up_scales[expert])
        h = gate_up.astype(np.float64) @ x + weights.gate_up_bias[expert]
        inner = np.array([
            (max(-7.0, min(7.0, up)) + 1) * min(gate, 7.0) / (1 + math.exp(-1.702 * min(gate, 7.0)))
            for gate, up in h.reshape(-1, 2)
        ])  # fmt: skip
        matrix = mxfp4.dequantize(weights.down_blocks[expert], weights.down_scales[expert])
        out = matrix.astype(np.float64) @ inner + weights.down_bias[expert]
        result += math.exp(scores[expert]) / total * out
    return result


@pytest.mark.parametrize("tokens", [0, 1, 17])
def test_layer_matches_token_by_token(tokens: int) -> None:
    rng = np.random.default_rng(tokens)
    weights = random_weights(rng)
    hidden = 3 * rng.standard_normal((tokens, HIDDEN))
    result = moe.moe_layer(hidden, weights, TOP_K)
    assert result.shape == (tokens, HIDDEN)
    for token in range(tokens):
        np.testing.assert_allclose(result[token], one_token(hidden[token], weights), rtol=1e-10)


def test_route_is_a_stable_counting_sort() -> None:
    topk_ids = np.array([[2, 0], [0, 2], [4, 2]], dtype=np.int32)
    order, starts, ids = moe.route(topk_ids, 5)
    assert order.tolist() == [1, 2, 0, 3, 5, 4]
    assert starts.tolist() == [0, 2, 2, 5, 5, 6]
    assert ids.tolist() == [0, 1, 2, 3, 4]
    assert [str(part.dtype) for part in (order, starts, ids)] == ["uint32", "uint32", "int32"]


def test_matmul_leaves_rows_of_no_group_at_zero() -> None:
    rng = np.random.default_rng(5)
    weights = random_weights(rng)
    activations = rng.standard_normal((7, HIDDEN))
    result = moe.matmul(
        activations,
        weights.gate_up_blocks,
        weights.gate_up_scales,
        np.array([1, 3, 3, 5]),
        np.array([4, 1, 0]),
    )
    dense = mxfp4.dequantize(weights.gate_up_blocks, weights.gate_up_scales).astype(np.float64)
    assert not result[[0, 5, 6]].any()
    np.testing.assert_allclose(result[1:3], activations[1:3] @ dense[4].T, rtol=1e-12)
    np.testing.assert_allclose(result[3:5], activations[3:5] @ dense[0].T, rtol=1e-12)


def test_swiglu_clamps() -> None:
    gate_up = np.array([100.0, 100.0, -100.0, -100.0, 7.5, -7.5, 0.0, 3.0])
    seven = 7.0 / (1.0 + math.exp(-1.702 * 7.0))
    np.testing.assert_allclose(moe.swiglu(gate_up), [8 * seven, 0.0, -6 * seven, 0.0], atol=1e-60)
