# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The memory of MXFP4 experts that are expanded at load, and its refusal."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gpt_oss_configs import pipeline_config
from max.pipelines.architectures.gpt_oss.memory_planner import GptOssMemoryPlanner
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from toy_checkpoint import ToyCheckpoint

from max.pipelines.architectures.gpt_oss import expanded_memory

UPSTREAM = 6 * 1024**3
"""What MAX reserves beside BF16 experts."""

WEIGHTS_120B = 36 * 128 * 3 * 2880 * 2880
EXPANDED_120B = 2 * WEIGHTS_120B
PACKED_120B = WEIGHTS_120B // 2 + WEIGHTS_120B // 32


def reserved(folder: Path, layers: int, experts: int, width: int, **flags: Any) -> int:
    """Bytes reserved for a toy checkpoint as if it had these sizes."""
    pipeline = pipeline_config(folder, **flags)
    config = GptOssConfig.initialize(pipeline, max_seq_len=4096)
    config.num_hidden_layers, config.num_local_experts = layers, experts
    config.hidden_size = config.intermediate_size = width
    planner = GptOssMemoryPlanner(config)
    return int(planner.estimate_activation_memory(pipeline, pipeline.model.huggingface_config))


def test_expanded_experts_are_counted(tmp_path: Path, hopper: None) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    got = reserved(folder, 24, 32, 2880, quantization_encoding="bfloat16")
    assert got == UPSTREAM + 24 * 32 * 3 * 2880 * 2880 * 2


def test_the_experts_of_a_bf16_checkpoint_are_its_weights(tmp_path: Path, hopper: None) -> None:
    assert reserved(ToyCheckpoint(packed=False).write(tmp_path), 24, 32, 2880) == UPSTREAM


def free_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Gives the one device that many bytes."""
    device = SimpleNamespace(stats={"free_memory": size})
    monkeypatch.setattr(expanded_memory, "load_devices", lambda specs: [device])


def test_experts_that_just_fit_beside_the_packed_ones_run(
    tmp_path: Path, hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    free_memory(monkeypatch, EXPANDED_120B + PACKED_120B)
    got = reserved(folder, 36, 128, 2880, quantization_encoding="bfloat16")
    assert got == UPSTREAM + EXPANDED_120B


def test_experts_that_do_not_fit_are_refused(
    tmp_path: Path, hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    free_memory(monkeypatch, EXPANDED_120B + PACKED_120B - 1)
    with pytest.raises(
        ValueError, match=r"60\.9 GB, to 229\.3 GB, and 1 device.* 290\.2 GB free for both; leave"
    ):
        reserved(folder, 36, 128, 2880, quantization_encoding="bfloat16")
