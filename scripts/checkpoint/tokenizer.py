# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A byte-level tokenizer that covers the model's whole vocabulary.

Text becomes one token a byte. The other ordinary ids, which a model of random weights also
generates, are made-up words, so that every id decodes to something; the special tokens and the
chat template are those of gpt-oss's harmony format.
"""

from __future__ import annotations

import json
from itertools import islice, product
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer  # type: ignore[import-untyped]
from tokenizers.decoders import ByteLevel as ByteLevelDecoder  # type: ignore[import-untyped]
from tokenizers.models import BPE  # type: ignore[import-untyped]
from tokenizers.pre_tokenizers import ByteLevel  # type: ignore[import-untyped]

from checkpoint.vocabulary import BYTES, Vocabulary

_SYLLABLES = [a + b for a, b in product("bcdfghjklmnpqrstvwxz", "aeiou")]

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == "assistant" -%}
<|start|>assistant<|channel|>final<|message|>{{ message.content }}<|end|>
{%- else -%}
<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|start|>assistant
{%- endif -%}
"""


def build_tokenizer(vocab: int) -> Tokenizer:
    """A tokenizer with exactly ``vocab`` ids."""
    vocabulary = Vocabulary(vocab)
    ordinary = sorted(ByteLevel.alphabet())
    words = (f"Ġ{''.join(parts)}" for parts in product(_SYLLABLES, repeat=3))
    ordinary += islice(words, vocabulary.first_special - BYTES)
    tokenizer = Tokenizer(BPE({text: token for token, text in enumerate(ordinary)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True) for _, text in vocabulary.special_tokens()]
    )
    return tokenizer


def tokenizer_config() -> dict[str, Any]:
    """The contents of ``tokenizer_config.json``."""
    return {
        "bos_token": "<|startoftext|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|return|>",
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def write_tokenizer(folder: Path, vocab: int) -> None:
    """Write the tokenizer, its configuration and the chat template."""
    build_tokenizer(vocab).save(str(folder / "tokenizer.json"), pretty=False)
    text = json.dumps(tokenizer_config(), indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
