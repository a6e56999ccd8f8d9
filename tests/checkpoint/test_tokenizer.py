# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The made tokenizer through transformers: round trips, special tokens, the chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from checkpoint.tokenizer import build_tokenizer
from checkpoint.vocabulary import Vocabulary
from reference.made_checkpoint import SMALL, make_small

ENDS = ("<|return|>", "<|endoftext|>", "<|call|>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("made") / "small")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


@pytest.mark.parametrize("text", ["", "Hello, world", " two  spaces\n", "Grüße 世界 🙂", "a\x00b"])
def test_text_round_trips(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_every_id_decodes(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(tokenizer) == SMALL.vocab
    words = [tokenizer.decode([token]) for token in range(256, SMALL.vocab)]
    assert all(words)
    assert len(set(words)) == len(words)


def test_special_tokens_agree_with_the_configurations(
    folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = json.loads((folder / "config.json").read_text())
    generation = json.loads((folder / "generation_config.json").read_text())
    ids = [tokenizer.convert_tokens_to_ids(text) for text in ENDS]
    assert config["eos_token_id"] == tokenizer.eos_token_id == ids[0]
    assert config["pad_token_id"] == tokenizer.pad_token_id == ids[1]
    assert generation["eos_token_id"] == ids
    assert generation["bos_token_id"] == tokenizer.bos_token_id


def test_chat_template_has_the_harmony_form(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\n"},
        {"role": "assistant", "content": "Hello <b>"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|start|>system<|message|>Be brief.<|end|>"
        "<|start|>user<|message|>Hi\n<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello <b><|end|>"
        "<|start|>user<|message|>Bye<|end|>"
        "<|start|>assistant"
    )
    ids = tokenizer.encode(text)
    assert ids[0] == Vocabulary(SMALL.vocab).id_of("<|start|>")
    assert ids.count(Vocabulary(SMALL.vocab).id_of("<|end|>")) == 4


def test_full_vocabulary_has_gpt_oss_ids() -> None:
    tokenizer = build_tokenizer(201_088)
    assert tokenizer.get_vocab_size() == 201_088
    for text, token in {
        "<|startoftext|>": 199998,
        "<|endoftext|>": 199999,
        "<|return|>": 200002,
        "<|constrain|>": 200003,
        "<|channel|>": 200005,
        "<|start|>": 200006,
        "<|end|>": 200007,
        "<|message|>": 200008,
        "<|call|>": 200012,
        "<|endofprompt|>": 200018,
    }.items():
        assert tokenizer.token_to_id(text) == token
        assert Vocabulary(201_088).id_of(text) == token
    assert tokenizer.decode([199_997]).strip()
