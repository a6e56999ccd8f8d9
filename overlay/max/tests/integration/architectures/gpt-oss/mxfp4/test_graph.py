# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The graph that MAX compiles for a packed checkpoint, as it is before compilation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gpt_oss_configs import UseGpu, pipeline_config
from max.graph import Graph
from max.graph.weights import load_weights
from max.nn.transformer import ReturnLogits
from max.pipelines.architectures.gpt_oss.gpt_oss import GptOss
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from toy_checkpoint import ToyCheckpoint, ToyShape

from max import tree
from max.pipelines.architectures.gpt_oss.quantization_format import kernel_extensions
from max.pipelines.architectures.gpt_oss.weight_adapters import convert_safetensor_state_dict

OPS = ["route", "gate_up_swiglu", "down", "combine"]

# Sizes that no other tensor of the model has.
SHAPE = ToyShape(layers=2, experts=12, hidden=320, width=352)


def traced(folder: Path) -> Graph:
    """Builds the model's graph as the pipeline does."""
    pipeline = pipeline_config(folder)
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
    for op in OPS:
        assert len(re.findall(rf'symbol = "mxfp4_moe_{op}"', text)) == SHAPE.layers
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


def test_every_dense_matmul_stays_inside_its_output(tmp_path: Path, hopper: None) -> None:
    text = str(traced(ToyCheckpoint(SHAPE).write(tmp_path)))
    # q, k and v together, the attention's output, and the router.
    assert len(re.findall(r'symbol = "dense_linear"', text)) == 3 * SHAPE.layers
    assert len(re.findall(r'symbol = "dense_linear_no_bias"', text)) == 1
    assert "mo.matmul" not in text


def test_one_device_runs_no_allreduce(tmp_path: Path, hopper: None) -> None:
    assert "distributed.allreduce" not in str(traced(ToyCheckpoint(SHAPE).write(tmp_path)))


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
