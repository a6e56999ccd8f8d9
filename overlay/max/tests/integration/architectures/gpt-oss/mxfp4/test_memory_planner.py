# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The memory that gpt-oss reserves beside its weights and KV cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gpt_oss_configs import UseGpu, pipeline_config
from max.pipelines.architectures.gpt_oss.memory_planner import GptOssMemoryPlanner
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from toy_checkpoint import ToyCheckpoint

from max.pipelines.architectures.gpt_oss.packed_memory import MARGIN_BYTES

MIB = 1024**2
GIB = 1024**3


def reserved(folder: Path, *, as_20b: bool = False, **flags: Any) -> int:
    """Bytes reserved for a toy checkpoint, or for gpt-oss-20b's shapes in its place."""
    pipeline = pipeline_config(folder, **flags)
    config = GptOssConfig.initialize(pipeline, max_seq_len=131072)
    if as_20b:
        config.hidden_size = config.intermediate_size = 2880
        config.vocab_size = 201088
        config.num_attention_heads, config.num_key_value_heads, config.head_dim = 64, 8, 64
        config.num_local_experts, config.num_experts_per_tok = 32, 4
    planner = GptOssMemoryPlanner(config)
    hf_config = pipeline.model.huggingface_config
    return int(planner.estimate_activation_memory(pipeline, hf_config))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return ToyCheckpoint().write(tmp_path)


def test_a_toy_reserves_little_more_than_the_margin(checkpoint: Path, hopper: None) -> None:
    assert MARGIN_BYTES < reserved(checkpoint) < MARGIN_BYTES + GIB // 8


def test_as_much_as_was_used_is_reserved(checkpoint: Path, hopper: None) -> None:
    """On an H200, `max serve` of gpt-oss-20b's sizes peaked at 19041 MiB.

    Of these 1051 were CUDA contexts, 13124 weights and 3078 KV cache.
    """
    used = (19041 - 1051 - 13124 - 3078) * MIB
    assert used < reserved(checkpoint, as_20b=True, max_batch_size=64) < 1.25 * used


def test_a_step_holds_its_largest_buffers(checkpoint: Path, hopper: None) -> None:
    tokens, requests, top_k, hidden, width, vocab = 1024, 16, 4, 2880, 2880, 201088
    got = reserved(checkpoint, as_20b=True, max_batch_input_tokens=tokens, max_batch_size=requests)
    gated = tokens * top_k * width * 2
    weighted = tokens * top_k * hidden * 2
    logits = requests * vocab * 4
    assert got >= MARGIN_BYTES + gated + weighted + logits


@pytest.mark.parametrize(
    "flags",
    [
        {"max_batch_input_tokens": 16384},
        {"max_batch_size": 1024},
        {"enable_echo": True},
        {"enable_chunked_prefill": False},
    ],
)
def test_larger_steps_reserve_more(checkpoint: Path, hopper: None, flags: dict[str, Any]) -> None:
    assert reserved(checkpoint, as_20b=True, **flags) > reserved(checkpoint, as_20b=True)


def test_experts_that_max_expands_keep_their_reservation(checkpoint: Path, use_gpu: UseGpu) -> None:
    use_gpu("sm_100a")
    shape = ToyCheckpoint().shape
    expanded = shape.experts * 3 * shape.hidden * shape.width * 2
    assert reserved(checkpoint) == 21 * GIB + expanded


def test_bf16_experts_keep_their_reservation(tmp_path: Path, use_gpu: UseGpu) -> None:
    use_gpu("sm_100a")
    assert reserved(ToyCheckpoint(packed=False).write(tmp_path)) == 6 * GIB
