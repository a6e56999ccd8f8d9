# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The gpt-oss MoE layer in NumPy: each graph op of the kernel package, and the layer as a whole.

All arithmetic is float64 and nothing is rounded in between, so that a result differs from an op's
only by the op's own rounding. E experts, T tokens, k slots a token, R = T * k routed rows, A expert
groups, H hidden size, I expert width. Weights are MXFP4: ``blocks`` uint8 ``[E, N, K / 2]`` and
``scales`` uint8 ``[E, N, K / 32]``.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from reference.mxfp4 import FloatArray, Uint8Array, dequantize

Float64Array: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]

ALPHA = 1.702
LIMIT = 7.0


class Routing(NamedTuple):
    """Routed rows sorted by expert, stable.

    ``token_expert_order`` uint32 ``[R]``: the slot ``t * k + j`` of each sorted row;
    ``expert_start_indices`` uint32 ``[E + 1]``: expert ``e`` has the rows from ``starts[e]`` to
    before ``starts[e + 1]``;
    ``expert_ids`` int32 ``[E]``: 0 to E - 1.
    """

    token_expert_order: npt.NDArray[np.uint32]
    expert_start_indices: npt.NDArray[np.uint32]
    expert_ids: npt.NDArray[np.int32]


def route(topk_ids: IntArray, experts: int) -> Routing:
    """Sort the slots of ``topk_ids`` (integers ``[T, k]``) by expert, keeping their order."""
    flat = topk_ids.reshape(-1)
    counts = np.bincount(flat, minlength=experts)
    return Routing(
        np.argsort(flat, kind="stable").astype(np.uint32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32),
        np.arange(experts, dtype=np.int32),
    )


def matmul(
    activations: FloatArray,
    blocks: Uint8Array,
    scales: Uint8Array,
    expert_start_indices: IntArray,
    expert_ids: IntArray,
) -> Float64Array:
    """Rows ``[starts[a], starts[a + 1])`` of ``[R, K]`` times the transposed matrix of ``ids[a]``.

    Returns float64 ``[R, N]``; rows outside every group are zero.
    """
    rows = activations.astype(np.float64)
    result = np.zeros((rows.shape[0], blocks.shape[1]))
    for group, expert in enumerate(expert_ids):
        start, end = (int(index) for index in expert_start_indices[group : group + 2])
        if start < end:
            weight = dequantize(blocks[expert], scales[expert]).astype(np.float64)
            result[start:end] = rows[start:end] @ weight.T
    return result


def row_bias(
    bias: FloatArray, rows: int, expert_start_indices: IntArray, expert_ids: IntArray
) -> Float64Array:
    """The bias ``[E, N]`` of each sorted row's expert: float64 ``[R, N]``, zero for no group."""
    result = np.zeros((rows, bias.shape[1]))
    for group, expert in enumerate(expert_ids):
        start, end = (int(index) for index in expert_start_indices[group : group + 2])
        result[start:end] = bias[expert]
    return result


def swiglu(gate_up: FloatArray, alpha: float = ALPHA, limit: float = LIMIT) -> Float64Array:
    """Clamped SwiGLU of gpt-oss: ``[..., 2 I]``, gate and up alternating, to ``[..., I]``."""
    wide = gate_up.astype(np.float64)
    gate = np.minimum(wide[..., 0::2], limit)
    up = np.clip(wide[..., 1::2], -limit, limit)
    with np.errstate(over="ignore"):
        result: Float64Array = (up + 1.0) * gate / (1.0 + np.exp(-alpha * gate))
    return result


def gate_up_swiglu(
    hidden: FloatArray,
    token_expert_order: IntArray,
    blocks: Uint8Array,
    scales: Uint8Array,
    bias: FloatArray,
    expert_start_indices: IntArray,
    expert_ids: IntArray,
    *,
    top_k: int,
    alpha: float = ALPHA,
    limit: float = LIMIT,
) -> Float64Array:
    """Gather, gate/up matmul, bias ``[E, 2 I]`` and SwiGLU: float64 ``[R, I]`` in expert order."""
    gathered = hidden[token_expert_order.astype(np.int64) // top_k]
    product = matmul(gathered, blocks, scales, expert_start_indices, expert_ids)
    biases = row_bias(bias, len(gathered), expert_start_indices, expert_ids)
    return swiglu(product + biases, alpha, limit)


def down(
    gated: FloatArray,
    token_expert_order: IntArray,
    blocks: Uint8Array,
    scales: Uint8Array,
    bias: FloatArray,
    router_weights: FloatArray,
    expert_start_indices: IntArray,
    expert_ids: IntArray,
) -> Float64Array:
    """Down matmul, bias ``[E, H]``, router weight ``[T, k]``: float64 ``[R, H]`` in slot order."""
    product = matmul(gated, blocks, scales, expert_start_indices, expert_ids)
    biased = product + row_bias(bias, len(gated), expert_start_indices, expert_ids)
    slots = token_expert_order.astype(np.int64)
    result = np.empty_like(biased)
    result[slots] = biased * router_weights.astype(np.float64).reshape(-1)[slots, None]
    return result


def combine(weighted: FloatArray, top_k: int) -> Float64Array:
    """Sum the ``top_k`` slots of each token: ``[R, H]`` in slot order to float64 ``[T, H]``."""
    slots = weighted.astype(np.float64).reshape(-1, top_k, weighted.shape[-1])
    result: Float64Array = slots.sum(axis=1)
    return result


class RouterChoice(NamedTuple):
    """The router's ``ids`` int32 ``[T, k]``, best first, and their softmax float64 ``[T, k]``."""

    ids: npt.NDArray[np.int32]
    weights: Float64Array


def choose_experts(logits: FloatArray, top_k: int) -> RouterChoice:
    """The ``top_k`` largest of the router logits ``[T, E]`` and the softmax over those alone."""
    wide = logits.astype(np.float64)
    ids = np.argsort(-wide, axis=-1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(wide, ids, axis=-1)
    exponentials = np.exp(chosen - chosen.max(axis=-1, keepdims=True))
    return RouterChoice(
        ids.astype(np.int32), exponentials / exponentials.sum(axis=-1, keepdims=True)
    )


class LayerWeights(NamedTuple):
    """One MoE layer's tensors, in the checkpoint's order of rows and bytes.

    Router weight ``[E, H]`` and bias ``[E]``; gate/up blocks ``[E, 2 I, H / 2]``, scales
    ``[E, 2 I, H / 32]``, bias ``[E, 2 I]``; down blocks ``[E, H, I / 2]``, scales
    ``[E, H, I / 32]``, bias ``[E, H]``.
    """

    router_weight: FloatArray
    router_bias: FloatArray
    gate_up_blocks: Uint8Array
    gate_up_scales: Uint8Array
    gate_up_bias: FloatArray
    down_blocks: Uint8Array
    down_scales: Uint8Array
    down_bias: FloatArray


def moe_layer(hidden: FloatArray, weights: LayerWeights, top_k: int) -> Float64Array:
    """A whole gpt-oss MoE layer on ``hidden`` ``[T, H]``: float64 ``[T, H]``."""
    logits = hidden.astype(np.float64) @ weights.router_weight.astype(np.float64).T
    choice = choose_experts(logits + weights.router_bias.astype(np.float64), top_k)
    routing = route(choice.ids, len(weights.router_weight))
    gated = gate_up_swiglu(
        hidden,
        routing.token_expert_order,
        weights.gate_up_blocks,
        weights.gate_up_scales,
        weights.gate_up_bias,
        routing.expert_start_indices,
        routing.expert_ids,
        top_k=top_k,
    )
    weighted = down(
        gated,
        routing.token_expert_order,
        weights.down_blocks,
        weights.down_scales,
        weights.down_bias,
        choice.weights,
        routing.expert_start_indices,
        routing.expert_ids,
    )
    return combine(weighted, top_k)
