# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""``config.json`` and ``generation_config.json`` in the form of openai/gpt-oss-20b."""

from __future__ import annotations

from typing import Any

from checkpoint.shapes import Shapes
from checkpoint.vocabulary import Vocabulary


def model_config(shapes: Shapes) -> dict[str, Any]:
    """The contents of ``config.json``."""
    vocabulary = Vocabulary(shapes.vocab)
    config: dict[str, Any] = {
        "architectures": ["GptOssForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        "eos_token_id": vocabulary.id_of("<|return|>"),
        "experts_per_token": shapes.top_k,
        "head_dim": shapes.head_dim,
        "hidden_act": "silu",
        "hidden_size": shapes.hidden,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": shapes.intermediate,
        "layer_types": [
            "full_attention" if layer % 2 else "sliding_attention" for layer in range(shapes.layers)
        ],
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": shapes.heads,
        "num_experts_per_tok": shapes.top_k,
        "num_hidden_layers": shapes.layers,
        "num_key_value_heads": shapes.kv_heads,
        "num_local_experts": shapes.experts,
        "output_router_logits": False,
        "pad_token_id": vocabulary.id_of("<|endoftext|>"),
        "quantization_config": {
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": shapes.vocab,
    }
    if not shapes.packed:
        del config["quantization_config"]
    return config


def generation_config(shapes: Shapes) -> dict[str, Any]:
    """The contents of ``generation_config.json``."""
    vocabulary = Vocabulary(shapes.vocab)
    ends = ("<|return|>", "<|endoftext|>", "<|call|>")
    return {
        "bos_token_id": vocabulary.id_of("<|startoftext|>"),
        "do_sample": True,
        "eos_token_id": [vocabulary.id_of(text) for text in ends],
        "pad_token_id": vocabulary.id_of("<|endoftext|>"),
    }
