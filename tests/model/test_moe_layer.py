# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""One gpt-oss MoE layer through MAX's CPU engine, against the NumPy reference."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from gpt_oss_configs import one_layer_config
from max.driver import CPU, Buffer
from max.dtype import DType
from max.engine import InferenceSession, Model
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
TOP_K = 3

IN_ROWS = ToyShape(experts=8, hidden=96, width=64)
"""Too small for panels."""

IN_PANELS = ToyShape(experts=4, hidden=256, width=256)
"""Both stacks fit panels; of half the width, down does not."""


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


class CompiledLayer(NamedTuple):
    """A layer whole and as two shards, in one model on the CPU engine."""

    checkpoint: ToyCheckpoint
    stacks: dict[str, npt.NDArray[np.uint8]]
    """The packed weights that the model was loaded with."""
    model: Model

    def run(self, hidden: npt.NDArray[np.uint16]) -> list[npt.NDArray[np.float32]]:
        """The whole layer's result and the shards' for BF16 bits ``[T, H]``."""
        buffer = Buffer.from_numpy(hidden).view(DType.bfloat16, hidden.shape)
        return [bfloat16_array(output) for output in self.model.execute(buffer)]


@pytest.fixture(scope="module", params=[IN_ROWS, IN_PANELS], ids=["rows", "panels"])
def compiled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> CompiledLayer:
    shape: ToyShape = request.param
    checkpoint = ToyCheckpoint(shape)
    folder = checkpoint.write(tmp_path_factory.mktemp("checkpoint"))
    loaded = load_weights(sorted(folder.glob("*.safetensors")))
    state = convert_safetensor_state_dict(dict(loaded.items()))

    layer = GptOssMoE(one_layer_config(shape, top_k=TOP_K))
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
    weights = layer.state_dict()
    buffers = {name: Buffer.from_dlpack(value) for name, value in weights.items()}
    stacks = {
        name: buffer.to_numpy().copy()
        for name, buffer in buffers.items()
        if buffer.dtype == DType.uint8
    }
    model = InferenceSession(devices=[CPU()]).load(graph, weights_registry=weights | stacks)
    return CompiledLayer(checkpoint, stacks, model)


def random_hidden(tokens: int, hidden: int) -> npt.NDArray[np.uint16]:
    """BF16 bits ``[tokens, hidden]`` of normal numbers."""
    values = np.random.default_rng(1).normal(size=(tokens, hidden))
    return to_bf16_bits(values.astype(np.float32))


@pytest.mark.parametrize("tokens", [0, 1, 37])
def test_layer_and_its_shards_match_the_reference_on_the_cpu_engine(
    compiled: CompiledLayer, tokens: int
) -> None:
    hidden = random_hidden(tokens, compiled.checkpoint.shape.hidden)
    whole, *parts = compiled.run(hidden)
    want = moe_layer(from_bf16_bits(hidden), reference_weights(compiled.checkpoint), TOP_K)
    for got in (whole, np.sum(parts, axis=0)):
        assert got.shape == want.shape
        if tokens:
            assert np.linalg.norm(got - want) < 1e-2 * np.linalg.norm(want)


def test_panels_are_made_at_load_and_not_in_a_step(compiled: CompiledLayer) -> None:
    """The CPU engine reads weights where its caller has them, so a step sees them change.

    A step of a layer in panels does not: it reads what was made of them before.
    """
    hidden = random_hidden(5, compiled.checkpoint.shape.hidden)
    originals = {name: stack.copy() for name, stack in compiled.stacks.items()}
    assert len(originals) == 4
    before = compiled.run(hidden)[0]
    try:
        for stack in compiled.stacks.values():
            stack[...] = 0
        after = compiled.run(hidden)[0]
    finally:
        for name, stack in compiled.stacks.items():
            stack[...] = originals[name]
    assert np.array_equal(before, after) == (compiled.checkpoint.shape is IN_PANELS)


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
