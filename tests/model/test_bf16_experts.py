# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The experts of a BF16 gpt-oss layer through MAX's CPU engine, against NumPy.

Upstream's routing has no kernel for CPUs, so the test brings the groups itself.
"""

from __future__ import annotations

import numpy as np
from gpt_oss_configs import one_layer_config
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, ShardingStrategy, TensorType
from max.nn.moe.stacked_moe import RoutingInfo
from toy_checkpoint import ToyShape

from max.nn import dense_linear
from max.pipelines.architectures.gpt_oss.layers.moe import GptOssMoE
from reference.moe import swiglu
from reference.mxfp4 import from_bf16_bits, to_bf16_bits

SHAPE = ToyShape(experts=4, hidden=96, width=64)
COUNTS = [3, 0, 9, 1]


def bf16(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """BF16 bits of normal numbers."""
    return to_bf16_bits(rng.normal(size=shape).astype(np.float32))


def test_bf16_experts_and_their_shards_match_numpy() -> None:
    rng = np.random.default_rng(0)
    experts, hidden, width = SHAPE.experts, SHAPE.hidden, SHAPE.width
    bits = {
        "experts.gate_up_proj": bf16(rng, experts, hidden, 2 * width),
        "experts.gate_up_proj_bias": bf16(rng, experts, 2 * width),
        "experts.down_proj": bf16(rng, experts, width, hidden),
        "experts.down_proj_bias": bf16(rng, experts, hidden),
        "gate.gate_score.weight": bf16(rng, experts, hidden),
        "gate.gate_score.bias": bf16(rng, experts),
    }
    device = DeviceRef.CPU()
    layer = GptOssMoE(one_layer_config(SHAPE, quantization_format="bf16"))
    assert layer.grouped
    layer.sharding_strategy = ShardingStrategy.tensor_parallel(2)
    shards = layer.shard([device, device])
    layer.load_state_dict(
        {
            name: Buffer.from_numpy(array).view(DType.bfloat16, array.shape)
            for name, array in bits.items()
        },
        weight_alignment=1,
    )
    rows = sum(COUNTS)
    types = [
        TensorType(DType.bfloat16, [rows, hidden], device),
        TensorType(DType.uint32, [experts + 1], device),
        TensorType(DType.int32, [experts], device),
        TensorType(DType.int32, [rows], device),
        TensorType(DType.int32, [rows], device),
    ]
    with Graph(
        "experts", input_types=types, custom_extensions=[dense_linear.kernel_package_path()]
    ) as graph:
        x, starts, ids, slot_experts, order = (value.tensor for value in graph.inputs)
        unused = order
        routing = RoutingInfo(order, starts, unused, ids, unused, slot_experts)
        graph.output(*(part._forward_bf16(x, routing) for part in (layer, *shards)))
    model = InferenceSession(devices=[CPU()]).load(graph, weights_registry=layer.state_dict())

    ids_host = np.array([2, 0, 3, 1], np.int32)
    starts_host = np.concatenate([[0], np.cumsum(COUNTS)]).astype(np.uint32)
    row_experts = np.repeat(ids_host, COUNTS)
    order_host = rng.permutation(rows).astype(np.int32)
    slots = np.empty(rows, np.int32)
    slots[order_host] = row_experts
    x_bits = bf16(rng, rows, hidden)
    outputs = model.execute(
        Buffer.from_numpy(x_bits).view(DType.bfloat16, x_bits.shape),
        *(Buffer.from_numpy(array) for array in (starts_host, ids_host, slots, order_host)),
    )
    whole, *parts = (
        from_bf16_bits(output.view(DType.uint16, output.shape).to_numpy()) for output in outputs
    )

    weights = {name: from_bf16_bits(array).astype(np.float64) for name, array in bits.items()}
    x_values = from_bf16_bits(x_bits).astype(np.float64)
    want = np.empty((rows, hidden))
    for row, expert in enumerate(row_experts):
        gate_up = x_values[row] @ weights["experts.gate_up_proj"][expert]
        gated = swiglu(gate_up + weights["experts.gate_up_proj_bias"][expert])
        down = gated @ weights["experts.down_proj"][expert]
        want[row] = down + weights["experts.down_proj_bias"][expert]
    for got in (whole, np.sum(parts, axis=0)):
        assert np.linalg.norm(got - want) < 1e-2 * np.linalg.norm(want)
