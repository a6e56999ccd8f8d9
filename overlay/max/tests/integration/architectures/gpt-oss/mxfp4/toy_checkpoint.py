# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Tiny gpt-oss checkpoints on disk that tests can damage before writing them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensors = dict[str, tuple[str, npt.NDArray[Any]]]
"""Name to safetensors dtype and the array whose bytes are stored (BF16 as uint16)."""

EXPERTS = "model.layers.{layer}.mlp.experts.{part}"


@dataclass
class ToyShape:
    """Sizes of a toy model; every one can be read back from its config.json."""

    layers: int = 2
    experts: int = 4
    hidden: int = 64
    width: int = 96
    vocab: int = 160
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64


@dataclass
class ToyCheckpoint:
    """A checkpoint in memory: its config and tensors, split into shards when written."""

    shape: ToyShape = field(default_factory=ToyShape)
    packed: bool = True
    shards: int = 2
    config: dict[str, Any] = field(init=False)
    tensors: Tensors = field(init=False)

    def __post_init__(self) -> None:
        self.config = _config(self.shape, packed=self.packed)
        self.tensors = dict(_tensors(self.shape, packed=self.packed))

    def write(self, folder: Path) -> Path:
        """Writes config, shards and index into ``folder`` and returns it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config))
        names = sorted(self.tensors)
        weight_map: dict[str, str] = {}
        for shard in range(self.shards):
            file = f"model-{shard + 1:05}-of-{self.shards:05}.safetensors"
            part = names[shard :: self.shards]
            write_safetensors(folder / file, {name: self.tensors[name] for name in part})
            weight_map |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": weight_map})
        )
        return folder


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Writes one shard, its tensors in the order given."""
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, array) in tensors.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, array in tensors.values():
            file.write(array.tobytes())


def _config(shape: ToyShape, *, packed: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "experts_per_token": 2,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": shape.width,
        "layer_types": [
            "full_attention" if layer % 2 else "sliding_attention" for layer in range(shape.layers)
        ],
        "max_position_embeddings": 131072,
        "num_attention_heads": shape.heads,
        "num_experts_per_tok": 2,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "num_local_experts": shape.experts,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        "rope_theta": 150000,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab,
    }
    if packed:
        config["quantization_config"] = {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"],
        }
    return config


def _tensors(shape: ToyShape, *, packed: bool) -> Iterator[tuple[str, tuple[str, Any]]]:
    random = np.random.default_rng(0)

    def bfloat16(*dims: int) -> tuple[str, Any]:
        values = random.normal(0.0, 0.05, dims).astype(np.float32)
        return "BF16", (values.view(np.uint32) >> 16).astype(np.uint16)

    def uint8(low: int, high: int, *dims: int) -> tuple[str, Any]:
        return "U8", random.integers(low, high, dims, dtype=np.uint8)

    query = shape.heads * shape.head_dim
    key = shape.kv_heads * shape.head_dim
    yield "model.embed_tokens.weight", bfloat16(shape.vocab, shape.hidden)
    yield "model.norm.weight", bfloat16(shape.hidden)
    yield "lm_head.weight", bfloat16(shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", bfloat16(shape.hidden)
        yield prefix + "post_attention_layernorm.weight", bfloat16(shape.hidden)
        yield prefix + "self_attn.sinks", bfloat16(shape.heads)
        for name, rows, columns in (
            ("q_proj", query, shape.hidden),
            ("k_proj", key, shape.hidden),
            ("v_proj", key, shape.hidden),
            ("o_proj", shape.hidden, query),
        ):
            yield f"{prefix}self_attn.{name}.weight", bfloat16(rows, columns)
            yield f"{prefix}self_attn.{name}.bias", bfloat16(rows)
        yield prefix + "mlp.router.weight", bfloat16(shape.experts, shape.hidden)
        yield prefix + "mlp.router.bias", bfloat16(shape.experts)
        for name, rows, columns in (
            ("gate_up_proj", 2 * shape.width, shape.hidden),
            ("down_proj", shape.hidden, shape.width),
        ):
            stack = EXPERTS.format(layer=layer, part=name)
            yield stack + "_bias", bfloat16(shape.experts, rows)
            if packed:
                groups = columns // 32
                yield stack + "_blocks", uint8(0, 256, shape.experts, rows, groups, 16)
                yield stack + "_scales", uint8(118, 124, shape.experts, rows, groups)
            else:
                yield stack, bfloat16(shape.experts, columns, rows)
