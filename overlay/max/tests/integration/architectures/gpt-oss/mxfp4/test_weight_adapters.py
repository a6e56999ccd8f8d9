# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The weight adapter on checkpoints on disk: names, bytes that stay where they are, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gpt_oss_configs import UseGpu, pipeline_config
from max.driver import Buffer
from max.dtype import DType
from max.graph.weights import WeightData, Weights, load_weights
from toy_checkpoint import EXPERTS, ToyCheckpoint, ToyShape
from transformers import AutoConfig

from max.pipelines.architectures.gpt_oss.weight_adapters import convert_safetensor_state_dict

GATE_UP = EXPERTS.format(layer=1, part="gate_up_proj")
DOWN = EXPERTS.format(layer=0, part="down_proj")
MAX_GATE_UP = GATE_UP.replace("model.", "language_model.", 1)


def open_checkpoint(folder: Path) -> dict[str, Weights]:
    return dict(load_weights(sorted(folder.glob("*.safetensors"))).items())


def convert(checkpoint: ToyCheckpoint, folder: Path) -> dict[str, WeightData]:
    state = open_checkpoint(checkpoint.write(folder))
    converted: dict[str, WeightData] = convert_safetensor_state_dict(
        state, huggingface_config=AutoConfig.from_pretrained(folder)
    )
    return converted


def array_of(data: WeightData) -> npt.NDArray[np.uint8]:
    array: npt.NDArray[Any] = np.from_dlpack(data.data)
    return array


def test_every_tensor_gets_its_name_in_max(tmp_path: Path) -> None:
    checkpoint = ToyCheckpoint(ToyShape(layers=1))
    converted = convert(checkpoint, tmp_path)
    layer = "language_model.layers.0."
    attention = {
        f"{layer}self_attn.{name}_proj.{part}" for name in "qkvo" for part in ("weight", "bias")
    }
    experts = {
        f"{layer}mlp.experts.{name}_proj{part}"
        for name in ("gate_up", "down")
        for part in ("", "_scale", "_bias")
    }
    assert converted.keys() == attention | experts | {
        "language_model.embed_tokens.weight",
        "language_model.norm.weight",
        "language_model.lm_head.weight",
        layer + "input_layernorm.weight",
        layer + "post_attention_layernorm.weight",
        layer + "self_attn.sinks",
        layer + "mlp.gate.gate_score.weight",
        layer + "mlp.gate.gate_score.bias",
    }
    assert all(name == data.name for name, data in converted.items())


def test_packed_experts_keep_their_bytes(tmp_path: Path) -> None:
    shape = ToyShape()
    checkpoint = ToyCheckpoint(shape)
    converted = convert(checkpoint, tmp_path)
    blocks, scales = converted[MAX_GATE_UP], converted[MAX_GATE_UP + "_scale"]
    assert blocks.dtype == scales.dtype == DType.uint8
    assert list(blocks.shape) == [shape.experts, 2 * shape.width, shape.hidden // 2]
    assert list(scales.shape) == [shape.experts, 2 * shape.width, shape.hidden // 32]
    assert array_of(blocks).tobytes() == checkpoint.tensors[GATE_UP + "_blocks"][1].tobytes()
    assert array_of(scales).tobytes() == checkpoint.tensors[GATE_UP + "_scales"][1].tobytes()


def mapped_files(address: int) -> str:
    """The line of this process's memory map that holds an address."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if start <= address < end:
            return line
    raise AssertionError(f"{address:#x} is not mapped")


def test_packed_experts_stay_in_the_mapped_file(tmp_path: Path) -> None:
    state = open_checkpoint(ToyCheckpoint(shards=1).write(tmp_path))
    converted = convert_safetensor_state_dict(state)
    for name in ("_blocks", "_scales"):
        stored = array_of(state[GATE_UP + name].data())
        max_name = MAX_GATE_UP + {"_blocks": "", "_scales": "_scale"}[name]
        kept = array_of(converted[max_name])
        assert np.shares_memory(stored, kept)
        assert kept.ctypes.data == stored.ctypes.data
        assert "model-00001-of-00001.safetensors" in mapped_files(kept.ctypes.data)


def test_the_original_layout_is_left_out(tmp_path: Path) -> None:
    checkpoint = ToyCheckpoint()
    expected = convert(checkpoint, tmp_path / "without").keys()
    for name in ("block.0.mlp.mlp1_weight.blocks", "embedding.weight", "norm.scale"):
        checkpoint.tensors[name] = ("U8", np.zeros(4, np.uint8))
    assert convert(checkpoint, tmp_path / "with").keys() == expected


def test_bf16_experts_are_only_renamed(tmp_path: Path) -> None:
    checkpoint = ToyCheckpoint(packed=False)
    converted = convert(checkpoint, tmp_path)
    experts = converted[MAX_GATE_UP]
    assert experts.dtype == DType.bfloat16
    stored = checkpoint.tensors[GATE_UP][1]
    assert tuple(int(dim) for dim in experts.shape) == stored.shape
    assert isinstance(experts.data, Buffer)
    kept = experts.data.view(DType.uint16, stored.shape).to_numpy()
    np.testing.assert_array_equal(kept, stored)


@pytest.mark.parametrize(
    ("architecture", "dtype"), [("sm_90a", DType.uint8), ("sm_100a", DType.float8_e8m0fnu)]
)
def test_scales_are_labelled_for_the_path_that_reads_them(
    tmp_path: Path, use_gpu: UseGpu, architecture: str, dtype: DType
) -> None:
    use_gpu(architecture)
    folder = ToyCheckpoint().write(tmp_path)
    converted = convert_safetensor_state_dict(
        open_checkpoint(folder), pipeline_config=pipeline_config(folder)
    )
    assert converted[MAX_GATE_UP + "_scale"].dtype == dtype
    assert converted[MAX_GATE_UP].dtype == DType.uint8


Damage = Callable[[ToyCheckpoint], None]


def without(name: str) -> Damage:
    def damage(checkpoint: ToyCheckpoint) -> None:
        del checkpoint.tensors[name]

    return damage


def reshaped(name: str, *shape: int) -> Damage:
    def damage(checkpoint: ToyCheckpoint) -> None:
        dtype, array = checkpoint.tensors[name]
        checkpoint.tensors[name] = (dtype, np.resize(array, shape))

    return damage


def retyped(name: str, dtype: str, storage: Any) -> Damage:
    def damage(checkpoint: ToyCheckpoint) -> None:
        _, array = checkpoint.tensors[name]
        checkpoint.tensors[name] = (dtype, array.astype(storage))

    return damage


def configured(**values: Any) -> Damage:
    def damage(checkpoint: ToyCheckpoint) -> None:
        checkpoint.config.update(values)

    return damage


REFUSALS: list[tuple[Damage, str]] = [
    (without(GATE_UP + "_scales"), rf"{GATE_UP}_blocks comes without {GATE_UP}_scales"),
    (without(DOWN + "_blocks"), rf"{DOWN}_scales comes without {DOWN}_blocks"),
    (without(GATE_UP + "_bias"), rf"{GATE_UP}_bias is missing"),
    (without("lm_head.weight"), r"lm_head\.weight is missing"),
    (without("model.layers.1.self_attn.sinks"), r"model\.layers\.1\.self_attn\.sinks is missing"),
    (reshaped(GATE_UP + "_blocks", 4, 192, 32), rf"{GATE_UP}_blocks has shape .*\[experts, rows"),
    (reshaped(GATE_UP + "_blocks", 4, 192, 2, 15), rf"{GATE_UP}_blocks .* K = 60; .* of 32"),
    (reshaped(GATE_UP + "_scales", 4, 192, 3), rf"{GATE_UP}_scales has shape \[4, 192, 3\]; .* 2"),
    (reshaped(GATE_UP + "_scales", 4, 384), rf"{GATE_UP}_scales has shape \[4, 384\]"),
    (retyped(GATE_UP + "_blocks", "I8", np.int8), rf"{GATE_UP}_blocks is int8; .* uint8"),
    (retyped(GATE_UP + "_scales", "F32", np.float32), rf"{GATE_UP}_scales is float32; .* uint8"),
    (retyped("model.norm.weight", "F32", np.float32), r"model\.norm\.weight is float32"),
    (configured(num_local_experts=8), r"router\.weight is bfloat16 \[4, 64\]; .* \[8, 64\]"),
    (
        configured(num_hidden_layers=3, layer_types=["full_attention"] * 3),
        r"model\.layers\.2\..* is missing .* 3 layers",
    ),
    (
        configured(num_hidden_layers=1, layer_types=["sliding_attention"]),
        r"model\.layers\.1\..* is beyond the 1 layers",
    ),
    (configured(hidden_size=128), r"embed_tokens\.weight is bfloat16 \[160, 64\]; .* \[160, 128\]"),
    (configured(intermediate_size=128), r"mlp\.experts\.\w+ is .* \[4, 192.*; .* asks for .* 256"),
    (configured(hidden_size=80), "hidden_size is 80; .* multiple of 32"),
    (configured(intermediate_size=90), "intermediate_size is 90; .* multiple of 32"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSALS)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, damage: Damage, message: str
) -> None:
    checkpoint = ToyCheckpoint()
    damage(checkpoint)
    with pytest.raises(ValueError, match=message):
        convert(checkpoint, tmp_path)
