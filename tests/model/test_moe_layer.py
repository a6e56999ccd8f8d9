# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One gpt-oss MoE layer through MAX's CPU engine, against the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gpt_oss_configs import one_layer_config
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, ShardingStrategy, TensorType
from max.graph.weights import load_weights
from max.nn.moe import StackedMoE
from toy_checkpoint import ToyCheckpoint, ToyShape

from max.nn.mxfp4_moe import kernel_package_path
from max.pipelines.architectures.gpt_oss.layers.moe import GptOssMoE
from max.pipelines.architectures.gpt_oss.weight_adapters import convert_safetensor_state_dict
from reference.moe import LayerWeights, moe_layer
from reference.mxfp4 import from_bf16_bits, to_bf16_bits

PREFIX = "language_model.layers.0.mlp."


def bfloat16_array(output: Any) -> npt.NDArray[np.float32]:
    """A BF16 result of the engine as float32."""
    assert isinstance(output, Buffer)
    assert output.dtype == DType.bfloat16
    return from_bf16_bits(output.view(DType.uint16, output.shape).to_numpy())


def reference_weights(checkpoint: ToyCheckpoint) -> LayerWeights:
    def tensor(part: str) -> npt.NDArray[Any]:
        dtype, array = checkpoint.tensors["model.layers.0.mlp." + part]
        return from_bf16_bits(array) if dtype == "BF16" else array

    def blocks(part: str) -> npt.NDArray[np.uint8]:
        array = tensor(part)
        return array.reshape(*array.shape[:2], -1)

    return LayerWeights(
        tensor("router.weight"),
        tensor("router.bias"),
        blocks("experts.gate_up_proj_blocks"),
        tensor("experts.gate_up_proj_scales"),
        tensor("experts.gate_up_proj_bias"),
        blocks("experts.down_proj_blocks"),
        tensor("experts.down_proj_scales"),
        tensor("experts.down_proj_bias"),
    )


def test_layer_and_its_shards_match_the_reference_on_the_cpu_engine(tmp_path: Path) -> None:
    shape = ToyShape(experts=8, hidden=96, width=64)
    checkpoint = ToyCheckpoint(shape)
    folder = checkpoint.write(tmp_path)
    weights = load_weights(sorted(folder.glob("*.safetensors")))
    state = convert_safetensor_state_dict(dict(weights.items()))

    layer = GptOssMoE(one_layer_config(shape, top_k=3))
    device = DeviceRef.CPU()
    layer.sharding_strategy = ShardingStrategy.tensor_parallel(2)
    shards = layer.shard([device, device])
    layer.load_state_dict(
        {name.removeprefix(PREFIX): data for name, data in state.items() if PREFIX in name},
        weight_alignment=1,
    )
    with Graph(
        "layer",
        input_types=[TensorType(DType.bfloat16, ["tokens", shape.hidden], device)],
        custom_extensions=[kernel_package_path()],
    ) as graph:
        x = graph.inputs[0].tensor
        graph.output(layer(x), *(shard(x) for shard in shards))
    model = InferenceSession(devices=[CPU()]).load(graph, weights_registry=layer.state_dict())

    random = np.random.default_rng(1)
    for tokens in (0, 1, 37):
        bits = to_bf16_bits(random.normal(size=(tokens, shape.hidden)).astype(np.float32))
        hidden = Buffer.from_numpy(bits).view(DType.bfloat16, bits.shape)
        whole, *parts = (bfloat16_array(output) for output in model.execute(hidden))
        want = moe_layer(from_bf16_bits(bits), reference_weights(checkpoint), 3)
        for got in (whole, np.sum(parts, axis=0)):
            assert got.shape == want.shape
            if tokens:
                assert np.linalg.norm(got - want) < 1e-2 * np.linalg.norm(want)


def test_tensor_parallel_shards_keep_whole_blocks() -> None:
    shape = ToyShape(hidden=96, width=128)
    layer = GptOssMoE(one_layer_config(shape, devices=[DeviceRef.CPU(0), DeviceRef.CPU(1)]))
    layer.sharding_strategy = ShardingStrategy.tensor_parallel(2)
    shards = layer.shard([DeviceRef.CPU(0), DeviceRef.CPU(1)])
    for shard in shards:
        assert isinstance(shard, StackedMoE)
        assert shard.packed
        assert shard.tp_size == 2
        assert shard.moe_dim == 64
        assert shard.config.intermediate_size == 64


def test_devices_that_do_not_divide_the_blocks_are_refused() -> None:
    layer = GptOssMoE(one_layer_config(ToyShape(width=96)))
    with pytest.raises(ValueError, match=r"intermediate_size 96 is 3 MXFP4 blocks .* 2 devices"):
        layer.sharding_strategy = ShardingStrategy.tensor_parallel(2)
