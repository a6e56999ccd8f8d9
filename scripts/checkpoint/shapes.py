# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The sizes of a gpt-oss model, the presets, and the tensors that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from math import prod

from checkpoint.vocabulary import MINIMUM_VOCABULARY

BLOCK = 32
"""Values along K that share one MXFP4 scale."""


class CheckpointError(Exception):
    """What was asked for cannot be made; the message says why and the way out."""


class Kind(Enum):
    """What a tensor holds, which decides its values."""

    WEIGHT = "weight"
    EMBEDDING = "embedding"
    NORM = "norm"
    BIAS = "bias"
    SINK = "sink"
    BLOCKS = "blocks"
    SCALES = "scales"


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the checkpoint.

    ``shape`` is the stored one; ``fan_in`` the length of the sum that it enters; ``gain`` the
    standard deviation that a unit-variance input comes out with.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    fan_in: int = 1
    gain: float = 1.0

    @property
    def dtype(self) -> str:
        """The safetensors name of the element type."""
        return "U8" if self.kind in (Kind.BLOCKS, Kind.SCALES) else "BF16"

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return prod(self.shape) * (1 if self.dtype == "U8" else 2)


@dataclass(frozen=True)
class Shapes:
    """The sizes of a gpt-oss model; ``intermediate`` is the width of one expert.

    Experts are MXFP4 where they are ``packed``, and else BF16, transposed as the checkpoints are
    that hold them so.
    """

    layers: int
    experts: int
    top_k: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    packed: bool = True

    def validate(self) -> None:
        """Raise ``CheckpointError`` for sizes that no gpt-oss checkpoint can have."""
        for option, value in vars(self).items():
            if option != "packed" and value < 1:
                raise CheckpointError(
                    f"--{option.replace('_', '-')} is {value}; it must be at least 1."
                )
        for option in ("hidden", "intermediate"):
            value = getattr(self, option)
            if value % BLOCK:
                raise CheckpointError(
                    f"--{option} is {value}; MXFP4 scales cover {BLOCK} values, so it must be a "
                    f"multiple of {BLOCK}."
                )
        if self.heads % self.kv_heads:
            raise CheckpointError(
                f"--heads is {self.heads}; it must be a multiple of --kv-heads, {self.kv_heads}."
            )
        if self.head_dim % 2:
            raise CheckpointError(
                f"--head-dim is {self.head_dim}; rotary embeddings turn pairs, so it must be even."
            )
        if self.top_k > self.experts:
            raise CheckpointError(
                f"--top-k is {self.top_k}; a token cannot have more experts than --experts, "
                f"{self.experts}."
            )
        if self.vocab < MINIMUM_VOCABULARY:
            raise CheckpointError(
                f"--vocab is {self.vocab}; the tokenizer's bytes and special tokens need at least "
                f"{MINIMUM_VOCABULARY}."
            )

    def tensors(self) -> Iterator[TensorSpec]:
        """Every tensor of the checkpoint, in the order of the model."""
        yield TensorSpec("model.embed_tokens.weight", Kind.EMBEDDING, (self.vocab, self.hidden))
        for layer in range(self.layers):
            yield from self._layer(f"model.layers.{layer}.")
        yield TensorSpec("model.norm.weight", Kind.NORM, (self.hidden,))
        # Twice the unit scale: the next token's distribution is neither flat nor a single peak.
        yield TensorSpec("lm_head.weight", Kind.WEIGHT, (self.vocab, self.hidden), self.hidden, 2.0)

    def _layer(self, prefix: str) -> Iterator[TensorSpec]:
        hidden, query, key = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield TensorSpec(f"{prefix}input_layernorm.weight", Kind.NORM, (hidden,))
        attention = f"{prefix}self_attn."
        for name, n, k, gain in (
            ("q_proj", query, hidden, 1.0),
            ("k_proj", key, hidden, 1.0),
            ("v_proj", key, hidden, 1.0),
            ("o_proj", hidden, query, RESIDUAL_GAIN),
        ):
            yield TensorSpec(f"{attention}{name}.weight", Kind.WEIGHT, (n, k), k, gain)
            yield TensorSpec(f"{attention}{name}.bias", Kind.BIAS, (n,))
        yield TensorSpec(f"{attention}sinks", Kind.SINK, (self.heads,))
        yield TensorSpec(f"{prefix}post_attention_layernorm.weight", Kind.NORM, (hidden,))
        # Router logits of some spread, so that the experts of a token have unequal weights.
        router = f"{prefix}mlp.router."
        yield TensorSpec(f"{router}weight", Kind.WEIGHT, (self.experts, hidden), hidden, 2.0)
        yield TensorSpec(f"{router}bias", Kind.BIAS, (self.experts,))
        experts = f"{prefix}mlp.experts."
        for name, n, k, gain in (
            ("gate_up_proj", 2 * self.intermediate, hidden, 1.0),
            ("down_proj", hidden, self.intermediate, RESIDUAL_GAIN),
        ):
            rows = (self.experts, n)
            if not self.packed:
                stack = (self.experts, k, n)
                yield TensorSpec(f"{experts}{name}", Kind.WEIGHT, stack, k, gain)
                yield TensorSpec(f"{experts}{name}_bias", Kind.BIAS, rows)
                continue
            blocks = (*rows, k // BLOCK, BLOCK // 2)
            yield TensorSpec(f"{experts}{name}_blocks", Kind.BLOCKS, blocks)
            scales = (*rows, k // BLOCK)
            yield TensorSpec(f"{experts}{name}_scales", Kind.SCALES, scales, k, gain)
            yield TensorSpec(f"{experts}{name}_bias", Kind.BIAS, rows)


RESIDUAL_GAIN = 0.5
"""What a branch adds to the residual stream: 36 layers of it stay of the embedding's order."""

_REAL = Shapes(
    layers=24,
    experts=32,
    top_k=4,
    hidden=2880,
    intermediate=2880,
    heads=64,
    kv_heads=8,
    head_dim=64,
    vocab=201_088,
)

PRESETS = {
    "toy": Shapes(
        layers=2,
        experts=8,
        top_k=4,
        hidden=256,
        intermediate=256,
        heads=8,
        kv_heads=2,
        head_dim=64,
        vocab=1024,
    ),
    "20b": _REAL,
    "120b": replace(_REAL, layers=36, experts=128),
}
"""Named sizes; ``20b`` and ``120b`` are those of openai/gpt-oss-20b and openai/gpt-oss-120b."""
