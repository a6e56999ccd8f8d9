# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""GptOssConfig.quantization_format: its default, and what is refused when the model starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from gpt_oss_configs import UseGpu, pipeline_config
from max.graph import DeviceRef
from max.nn.transformer import ReturnLogits
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from toy_checkpoint import ToyCheckpoint

from max.nn import dense_linear, mxfp4_moe
from max.pipelines.architectures.gpt_oss.quantization_format import (
    kernel_extensions,
    runs_packed,
)

GPU = DeviceRef.GPU()


def config_of(folder: Path, **flags: Any) -> GptOssConfig:
    return GptOssConfig.initialize(pipeline_config(folder, **flags), max_seq_len=4096)


@pytest.mark.parametrize("flags", [{}, {"quantization_encoding": "float4_e2m1fnx2"}])
def test_an_mxfp4_checkpoint_runs_packed_on_hopper(
    tmp_path: Path, hopper: None, flags: dict[str, str]
) -> None:
    config = config_of(ToyCheckpoint().write(tmp_path), **flags)
    assert config.quantization_encoding == "float4_e2m1fnx2"
    assert config.quantization_format == "mxfp4"
    assert runs_packed(config.quantization_format, config.devices[0])
    assert kernel_extensions(config.quantization_format, GPU) == (
        mxfp4_moe.kernel_package_path(),
        dense_linear.kernel_package_path(),
    )


@pytest.mark.parametrize("flags", [{}, {"quantization_encoding": "bfloat16"}])
def test_an_mxfp4_checkpoint_is_expanded_by_max_on_other_gpus(
    tmp_path: Path,
    use_gpu: UseGpu,
    caplog: pytest.LogCaptureFixture,
    flags: dict[str, str],
) -> None:
    use_gpu("sm_100a")
    config = config_of(ToyCheckpoint().write(tmp_path), **flags)
    assert config.quantization_format == "mxfp4"
    assert not runs_packed(config.quantization_format, config.devices[0])
    with caplog.at_level(logging.INFO, logger="max.pipelines"):
        assert kernel_extensions(config.quantization_format, GPU) == ()
    (record,) = caplog.records
    assert "need an NVIDIA Hopper GPU: on sm_100a" in record.getMessage()


def test_a_bf16_checkpoint_keeps_its_experts(
    tmp_path: Path, use_gpu: UseGpu, caplog: pytest.LogCaptureFixture
) -> None:
    use_gpu("sm_100a")
    config = config_of(ToyCheckpoint(packed=False).write(tmp_path))
    assert config.quantization_format == "bf16"
    with caplog.at_level(logging.INFO, logger="max.pipelines"):
        assert kernel_extensions(config.quantization_format, GPU) == ()
    assert not caplog.records


@pytest.mark.parametrize(
    ("packed", "flags"), [(False, {}), (True, {"quantization_encoding": "bfloat16"})]
)
def test_bf16_runs_on_hopper(
    tmp_path: Path, hopper: None, packed: bool, flags: dict[str, str]
) -> None:
    config = config_of(ToyCheckpoint(packed=packed).write(tmp_path), **flags)
    assert config.quantization_format == "bf16"
    assert not runs_packed(config.quantization_format, config.devices[0])
    assert kernel_extensions(config.quantization_format, GPU) == (
        dense_linear.kernel_package_path(),
    )


def test_float4_for_a_bf16_checkpoint_is_refused(tmp_path: Path, hopper: None) -> None:
    folder = ToyCheckpoint(packed=False).write(tmp_path)
    with pytest.raises(ValueError, match="float4_e2m1fnx2"):
        config_of(folder, quantization_encoding="float4_e2m1fnx2")


@pytest.mark.parametrize(
    ("chosen", "packed", "message"),
    [
        ("mxfp4", False, "'mxfp4' .*needs packed MXFP4 experts"),
        ("bf16", True, "'bf16' expands an MXFP4 checkpoint at load on Hopper GPUs alone"),
        ("int8", True, "'int8' is unknown; use 'mxfp4' or 'bf16'"),
    ],
)
def test_a_format_set_by_hand_is_checked(
    tmp_path: Path, use_gpu: UseGpu, chosen: Any, packed: bool, message: str
) -> None:
    use_gpu("sm_100a")
    pipeline = pipeline_config(ToyCheckpoint(packed=packed).write(tmp_path))
    config = GptOssConfig.initialize(pipeline, max_seq_len=4096)
    config.quantization_format = chosen
    with pytest.raises(ValueError, match=message):
        config.finalize(
            huggingface_config=pipeline.model.huggingface_config,
            state_dict={},
            return_logits=ReturnLogits.LAST_TOKEN,
        )


def test_packed_tensors_without_quantization_config_are_refused(
    tmp_path: Path, hopper: None
) -> None:
    checkpoint = ToyCheckpoint()
    del checkpoint.config["quantization_config"]
    folder = checkpoint.write(tmp_path)
    with pytest.raises(ValueError, match=r"_blocks is packed MXFP4, but config.json has no"):
        config_of(folder)


def test_quantization_config_without_packed_tensors_is_refused(
    tmp_path: Path, hopper: None
) -> None:
    checkpoint = ToyCheckpoint(packed=False)
    checkpoint.config["quantization_config"] = {"quant_method": "mxfp4"}
    folder = checkpoint.write(tmp_path)
    with pytest.raises(ValueError, match=r"says mxfp4, but .* no experts\.gate_up_proj_blocks"):
        config_of(folder)


def test_a_damaged_shard_is_refused_before_the_model_is_built(tmp_path: Path, hopper: None) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(ValueError, match=rf"{shard} is truncated or corrupt"):
        config_of(folder)


def test_tensors_that_disagree_with_the_config_are_refused_before_the_model_is_built(
    tmp_path: Path, hopper: None
) -> None:
    checkpoint = ToyCheckpoint()
    checkpoint.config["num_local_experts"] = 8
    folder = checkpoint.write(tmp_path)
    with pytest.raises(ValueError, match=r"mlp\.router\.weight is bfloat16 \[4, 64\]"):
        config_of(folder)


def test_the_only_shard_is_named_where_no_encoding_can_be_read_from_it(
    tmp_path: Path, hopper: None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ToyCheckpoint(shards=1).write(tmp_path)
    shard = folder / "model-00001-of-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(ValueError, match="weights cannot be found"):
        config_of(folder)
    assert f"{shard.name} is truncated or corrupt" in caplog.text
