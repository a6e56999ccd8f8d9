# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The graph that MAX compiles for a packed checkpoint, as it is before compilation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from gpt_oss_configs import UseGpu, pipeline_config
from max.driver import DeviceSpec
from max.graph import Graph
from max.graph.weights import load_weights
from max.nn.transformer import ReturnLogits
from max.pipelines.architectures.gpt_oss.gpt_oss import GptOss
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from toy_checkpoint import ToyCheckpoint, ToyShape

from max import tree
from max.pipelines.architectures.gpt_oss.expert_panels import STACKS
from max.pipelines.architectures.gpt_oss.quantization_format import kernel_extensions
from max.pipelines.architectures.gpt_oss.weight_adapters import convert_safetensor_state_dict

TWO_DEVICES = [DeviceSpec.accelerator(0), DeviceSpec.accelerator(1)]

OPS = {"experts": 1, "to_panels": 0, "select": 0, "gate_up_swiglu": 0, "down": 0, "combine": 0}
"""Each op, and how often a layer has it."""

# Sizes that no other tensor of the model has.
SHAPE = ToyShape(layers=2, experts=12, hidden=320, width=352)

# The same for two devices: each has 9 of the 18 blocks of the width.
SPLIT_SHAPE = ToyShape(layers=2, experts=12, hidden=320, width=576)


def traced(folder: Path, **flags: Any) -> Graph:
    """Builds the model's graph as the pipeline does."""
    pipeline = pipeline_config(folder, **flags)
    config = GptOssConfig.initialize(pipeline, max_seq_len=4096)
    weights = load_weights(pipeline.model.resolved_weight_paths())
    state = convert_safetensor_state_dict(
        dict(weights.items()),
        huggingface_config=pipeline.model.huggingface_config,
        pipeline_config=pipeline,
    )
    config.finalize(
        huggingface_config=pipeline.model.huggingface_config,
        state_dict=state,
        return_logits=ReturnLogits.LAST_TOKEN,
    )
    model = GptOss(config)
    model.load_state_dict(state, weight_alignment=1)
    return model.trace(
        *tree.leaves(model.input_tree()),
        custom_extensions=kernel_extensions(config.quantization_format, config.devices[0]),
    )


def test_packed_experts_are_never_bf16_in_the_graph(tmp_path: Path, hopper: None) -> None:
    text = str(traced(ToyCheckpoint(SHAPE).write(tmp_path)))
    for op, times in OPS.items():
        assert len(re.findall(rf'symbol = "mxfp4_moe_{op}"', text)) == times * SHAPE.layers
    assert len(re.findall("in_panels = true", text)) == SHAPE.layers
    assert "dequant" not in text
    assert "grouped" not in text
    stacks = {
        match[0] for match in re.finditer(rf"!mo\.tensor<\[{SHAPE.experts}, \d+, \d+\], \w+", text)
    }
    assert stacks == {
        f"!mo.tensor<[{SHAPE.experts}, {rows}, {columns}], ui8"
        for rows, k in ((2 * SHAPE.width, SHAPE.hidden), (SHAPE.hidden, SHAPE.width))
        for columns in (k // 2, k // 32)
    }


def test_stacks_are_bound_where_they_are_loaded(tmp_path: Path, hopper: None) -> None:
    text = str(traced(ToyCheckpoint(SHAPE).write(tmp_path)))
    loaded = re.findall(r'constant\.external \[name = "(\S+)".* hasAlias = true', text)
    assert sorted(loaded) == sorted(
        f"language_model.layers.{layer}.mlp.{stack}"
        for layer in range(SHAPE.layers)
        for stack in STACKS
    )


@pytest.mark.parametrize("packed", [True, False])
def test_bf16_experts_go_through_grouped_linear(tmp_path: Path, hopper: None, packed: bool) -> None:
    checkpoint = ToyCheckpoint(SHAPE, packed=packed).write(tmp_path)
    text = str(traced(checkpoint, quantization_encoding="bfloat16"))
    assert len(re.findall(r'symbol = "grouped_linear"', text)) == 2 * SHAPE.layers
    assert len(re.findall("mo.dequant.mxfp4", text)) == (2 * SHAPE.layers if packed else 0)
    assert "mxfp4_moe" not in text
    assert "mo.grouped" not in text


def test_every_dense_matmul_stays_inside_its_output(tmp_path: Path, hopper: None) -> None:
    text = str(traced(ToyCheckpoint(SHAPE).write(tmp_path)))
    # q, k and v together, the attention's output, and the router.
    assert len(re.findall(r'symbol = "dense_linear"', text)) == 3 * SHAPE.layers
    assert len(re.findall(r'symbol = "dense_linear_no_bias"', text)) == 1
    assert "mo.matmul" not in text


def test_one_device_runs_no_allreduce(tmp_path: Path, hopper: None) -> None:
    assert "distributed.allreduce" not in str(traced(ToyCheckpoint(SHAPE).write(tmp_path)))


def test_two_devices_share_every_stack(tmp_path: Path, two_hoppers: None) -> None:
    """Each has whole gate/up pairs and blocks of down, in panels of its own."""
    folder = ToyCheckpoint(SPLIT_SHAPE).write(tmp_path)
    text = str(traced(folder, device_specs=TWO_DEVICES))
    for op, times in (OPS | {"to_panels": 2}).items():
        calls = re.findall(rf'symbol = "mxfp4_moe_{op}"', text)
        assert len(calls) == 2 * times * SPLIT_SHAPE.layers
    assert len(re.findall("in_panels = true", text)) == 2 * SPLIT_SHAPE.layers
    part, hidden = SPLIT_SHAPE.width // 2, SPLIT_SHAPE.hidden
    for device in (0, 1):
        panels = re.findall(
            rf"!mo\.tensor<\[{SPLIT_SHAPE.experts}, (\d+), (\d+)\], ui8, gpu:{device}>", text
        )
        assert {(int(rows), int(columns)) for rows, columns in panels} == {
            (2 * part, hidden // 2),
            (2 * part, hidden // 32),
            (hidden, part // 2),
            (hidden, part // 32),
        }
    # After attention and after the experts.
    assert len(re.findall("distributed.allreduce", text)) >= 2 * SPLIT_SHAPE.layers
    assert "mo.matmul" not in text


def test_a_width_that_two_devices_cannot_share_is_refused(
    tmp_path: Path, two_hoppers: None
) -> None:
    folder = ToyCheckpoint(SHAPE).write(tmp_path)
    with pytest.raises(ValueError, match=r"intermediate_size 352 is 11 MXFP4 blocks .* 2 devices"):
        traced(folder, device_specs=TWO_DEVICES)


@pytest.mark.parametrize(("packed", "used"), [(True, "mo.dequant.mxfp4"), (False, "grouped")])
def test_other_gpus_keep_the_path_of_max(
    tmp_path: Path, use_gpu: UseGpu, packed: bool, used: str
) -> None:
    use_gpu("sm_100a")
    text = str(traced(ToyCheckpoint(SHAPE, packed=packed).write(tmp_path)))
    assert used in text
    assert "mo.matmul" in text
    assert "mxfp4_moe" not in text
    assert "dense_linear" not in text
