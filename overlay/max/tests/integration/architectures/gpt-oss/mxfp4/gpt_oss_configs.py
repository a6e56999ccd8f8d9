# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""GptOssConfig objects for tests, from toy checkpoints on disk or for one layer alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from max.dtype import DType
from max.graph import DeviceRef
from max.nn.quant_config import QuantConfig
from max.nn.rotary_embedding import YarnScalingParams
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from toy_checkpoint import ToyShape

from max.pipelines import PipelineArgs, PipelineConfig
from max.pipelines.architectures.gpt_oss.quantization_format import QuantizationFormat

UseGpu = Callable[[str], None]
"""Makes one GPU of an architecture, such as ``"sm_100a"``, the device."""


def pipeline_config(checkpoint: Path, **flags: Any) -> PipelineConfig:
    """The pipeline of a checkpoint on disk, as the command line builds it."""
    return PipelineConfig.from_args(
        PipelineArgs.from_flat_kwargs(model_path=str(checkpoint), **flags)
    )


def one_layer_config(
    shape: ToyShape,
    *,
    quantization_format: QuantizationFormat = "mxfp4",
    devices: list[DeviceRef] | None = None,
    top_k: int = 2,
) -> GptOssConfig:
    """A configuration that holds what a mixture-of-experts layer reads from it."""
    unused: Any = None
    packed = quantization_format == "mxfp4"
    return GptOssConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        hidden_activation="silu",
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        rope_theta=150000.0,
        attention_bias=True,
        sliding_window=128,
        num_local_experts=shape.experts,
        num_experts_per_tok=top_k,
        router_aux_loss_coef=0.9,
        layer_types=["sliding_attention", "full_attention"],
        attention_dropout=0.0,
        rope_scaling=YarnScalingParams(
            factor=32.0,
            beta_fast=32.0,
            beta_slow=1.0,
            original_max_position_embeddings=4096,
            truncate=False,
        ),
        query_pre_attn_scalar=None,
        final_logit_softcapping=None,
        attn_logit_softcapping=None,
        swiglu_limit=7.0,
        dtype=DType.bfloat16,
        devices=devices or [DeviceRef.CPU()],
        interleaved_rope_weights=False,
        kv_params=unused,
        quant_config=QuantConfig.mxfp4(
            mlp_quantized_layers=range(shape.layers),
            embedding_output_dtype=DType.bfloat16,
            bias_dtype=DType.bfloat16,
            can_use_fused_mlp=False,
        )
        if packed
        else None,
        quantization_format=quantization_format,
    )
