# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One gpt-oss MoE layer on MAX's CPU engine through the packed ops, against the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType

from max.nn.mxfp4_moe import (
    kernel_package_path,
    mxfp4_moe_combine,
    mxfp4_moe_down,
    mxfp4_moe_gate_up_swiglu,
    mxfp4_moe_route,
    mxfp4_moe_to_panels,
)
from reference.made_checkpoint import StoredTensor, load_tensors
from reference.moe import LayerWeights, choose_experts, moe_layer
from reference.mxfp4 import from_bf16_bits, round_bf16, to_bf16_bits

Array = npt.NDArray[Any]


def layer_error(checkpoint: Path, tokens: int, top_k: int) -> float:
    """Runs the MoE layer of the checkpoint's layer 0 both ways.

    Args:
        checkpoint: Folder of a made checkpoint.
        tokens: Number of random tokens, ``T``.
        top_k: Experts a token is routed to.

    Returns:
        The relative L2 error of MAX's bfloat16 ``[T, H]`` against the reference in float64.
    """
    stored = load_tensors(checkpoint)
    weights = _layer_weights(stored)
    generator = np.random.default_rng(0)
    hidden = round_bf16(generator.standard_normal((tokens, weights.router_weight.shape[1])))
    expected = moe_layer(hidden, weights, top_k)
    logits = hidden.astype(np.float64) @ weights.router_weight.T + weights.router_bias
    choice = choose_experts(logits, top_k)
    inputs = [
        _bf16(hidden),
        Buffer.from_numpy(choice.ids),
        Buffer.from_numpy(choice.weights.astype(np.float32)),
        Buffer.from_numpy(weights.gate_up_blocks),
        Buffer.from_numpy(weights.gate_up_scales),
        _bf16(weights.gate_up_bias),
        Buffer.from_numpy(weights.down_blocks),
        Buffer.from_numpy(weights.down_scales),
        _bf16(weights.down_bias),
    ]
    graph = _graph(inputs, top_k)
    (output,) = InferenceSession(devices=[CPU()]).load(graph).execute(*inputs)
    assert isinstance(output, Buffer)
    result = from_bf16_bits(output.view(DType.uint16, output.shape).to_numpy())
    return float(np.linalg.norm(result - expected) / np.linalg.norm(expected))


def _layer_weights(stored: dict[str, StoredTensor]) -> LayerWeights:
    """Layer 0 of the checkpoint; the stored blocks ``[E, N, K / 32, 16]`` as ``[E, N, K / 2]``."""

    def bits(name: str) -> Array:
        return np.array(stored[f"model.layers.0.mlp.{name}"].bits)

    def blocks(name: str) -> Array:
        stack = bits(name)
        return stack.reshape(*stack.shape[:2], -1)

    return LayerWeights(
        router_weight=from_bf16_bits(bits("router.weight")),
        router_bias=from_bf16_bits(bits("router.bias")),
        gate_up_blocks=blocks("experts.gate_up_proj_blocks"),
        gate_up_scales=bits("experts.gate_up_proj_scales"),
        gate_up_bias=from_bf16_bits(bits("experts.gate_up_proj_bias")),
        down_blocks=blocks("experts.down_proj_blocks"),
        down_scales=bits("experts.down_proj_scales"),
        down_bias=from_bf16_bits(bits("experts.down_proj_bias")),
    )


def _bf16(values: Array) -> Buffer:
    bits = np.ascontiguousarray(to_bf16_bits(values))
    return Buffer.from_numpy(bits.view(np.uint8)).view(DType.bfloat16, values.shape)


def _graph(inputs: list[Buffer], top_k: int) -> Graph:
    types = [TensorType(value.dtype, value.shape, DeviceRef.CPU()) for value in inputs]
    with Graph("layer", input_types=types, custom_extensions=[kernel_package_path()]) as graph:
        hidden, ids, router_weights, *stacks = (value.tensor for value in graph.inputs)
        gate_up = (*mxfp4_moe_to_panels(*stacks[:2]), stacks[2])
        down = (*mxfp4_moe_to_panels(*stacks[3:5]), stacks[5])
        order, starts, experts = mxfp4_moe_route(ids, int(stacks[0].shape[0]))
        gated = mxfp4_moe_gate_up_swiglu(
            hidden, order, *gate_up, starts, experts, top_k=top_k, in_panels=True
        )
        weighted = mxfp4_moe_down(
            gated, order, *down, router_weights, starts, experts, in_panels=True
        )
        graph.output(mxfp4_moe_combine(weighted, top_k=top_k))
    return graph
