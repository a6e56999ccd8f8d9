# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How much device memory a gpt-oss step uses when its experts stay packed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from max.pipelines.lib.memory_estimation import _DEFAULT_BATCH_SIZE

if TYPE_CHECKING:
    from max.pipelines.lib import PipelineConfig

    from .model_config import GptOssConfig

_MIB = 1024**2

MARGIN_BYTES = 1280 * _MIB
"""What is not counted below: kernel code, attention's workspace, and what the memory manager's
chunks leave unused. 940 MiB measured, with gpt-oss-20b's sizes and 64 sequences.

CUDA contexts are no part of it: the memory manager, which MAX plans with, leaves them room."""

_BFLOAT16 = 2
_FLOAT32 = 4

# The logits as lm_head writes them, as float32, and twice more while they are sampled.
_LOGIT_BYTES = _BFLOAT16 + 3 * _FLOAT32


def packed_activation_memory(config: GptOssConfig, pipeline_config: PipelineConfig) -> int:
    """Bytes beside weights and KV cache, over all devices, with the largest batch's buffers.

    The buffers of one layer are counted, since every layer reuses those of the one before.

    Args:
        config: The model.
        pipeline_config: Bounds the tokens and requests of a step.
    """
    runtime = pipeline_config.runtime
    tokens = runtime.max_num_input_tokens
    if tokens is None:
        tokens = max(runtime.max_batch_input_tokens, config.max_position_embeddings)
    requests = min(runtime.max_batch_size or _DEFAULT_BATCH_SIZE, tokens)
    devices = len(config.devices)
    logit_rows = tokens if pipeline_config.model.enable_echo else requests
    per_device = (
        tokens * _layer_bytes_per_token(config, devices)
        + logit_rows * config.vocab_size * _LOGIT_BYTES
        + MARGIN_BYTES
    )
    return devices * per_device


def _layer_bytes_per_token(config: GptOssConfig, devices: int) -> int:
    """The residual stream, and the larger of what attention and experts add to it."""
    stream = 3 * config.hidden_size * _BFLOAT16
    query = config.num_attention_heads * config.head_dim
    keys_and_values = 2 * config.num_key_value_heads * config.head_dim
    attention = (2 * query + keys_and_values) * _BFLOAT16 // devices
    # Gated rows, and first the gathered ones beside them, then their results.
    widths = config.intermediate_size // devices + config.hidden_size
    experts = config.num_experts_per_tok * widths * _BFLOAT16
    router = config.num_local_experts * _BFLOAT16
    return stream + max(attention, experts + router)
