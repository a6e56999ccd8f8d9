# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Nothing is sent for placeholders that stand where the step before had them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kv_requests import MAX_LENGTH, decode, request
from max.driver import CPU, Buffer
from max.nn.transformer import ReturnLogits
from max.pipelines.architectures.gpt_oss.batch_processor import GptOssBatchProcessor
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.lib.interfaces.batch_processor import BatchProcessorRuntime

from max import tree


@pytest.fixture
def processor() -> GptOssBatchProcessor:
    unused: Any = None
    runtime = BatchProcessorRuntime(
        pipeline_config=unused,
        devices=[CPU()],
        return_logits=ReturnLogits.LAST_TOKEN,
        max_batch_size=8,
        max_seq_len=MAX_LENGTH,
        max_batch_input_tokens=MAX_LENGTH,
    )
    return GptOssBatchProcessor(unused, runtime)


def prompt(length: int) -> TextContext:
    return TextContext(max_length=MAX_LENGTH, tokens=TokenBuffer(np.arange(length, dtype=np.int64)))


def offsets(inputs: Any) -> list[int]:
    (rows,) = inputs.input_row_offsets
    numbers: list[int] = rows.to_numpy().tolist()
    return numbers


def test_decoding_on_sends_nothing(processor: GptOssBatchProcessor) -> None:
    batch = [request(3), request(5)]
    first: Any = processor.prepare_initial_token_inputs([batch])
    # The pipeline takes the last step's tokens in place of the placeholders.
    staged, first.tokens = first.tokens, object()
    for context in batch:
        decode(context)
    second = processor.prepare_initial_token_inputs([batch])
    assert second is not first
    assert second.tokens is staged
    assert second.input_row_offsets[0] is first.input_row_offsets[0]
    assert second.return_n_logits is first.return_n_logits
    assert offsets(second) == [0, 1, 2]
    # As many others wait for their tokens in the same places.
    third = processor.prepare_initial_token_inputs([batch[::-1]])
    assert third.tokens is staged


def test_a_graph_reads_the_cache_inputs_of_its_step(processor: GptOssBatchProcessor) -> None:
    batch = [request(3)]
    caches: list[Any] = [{"full": (Buffer.from_numpy(np.array([n])),)} for n in range(2)]
    for cache in (caches[0], caches[0], caches[1], caches[1], caches[0]):
        inputs = processor.prepare_initial_token_inputs([batch], kv_cache_inputs=cache)
        assert inputs.buffers[-1] is cache["full"][0]
    inputs.kv_cache_inputs = caches[1]
    assert inputs.buffers[-1] is caches[1]["full"][0]


def test_kept_cache_inputs_are_not_taken_apart_again(
    processor: GptOssBatchProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = [request(3)]
    cache: Any = {"full": (Buffer.from_numpy(np.array([1])),)}
    for _ in range(2):
        processor.prepare_initial_token_inputs([batch], kv_cache_inputs=cache)
    monkeypatch.setattr(tree, "leaves", None)
    inputs = processor.prepare_initial_token_inputs([batch], kv_cache_inputs=cache)
    assert inputs.buffers[-1] is cache["full"][0]


@pytest.mark.parametrize("between", ["prompt", "more", "fewer"])
def test_other_rows_are_sent(processor: GptOssBatchProcessor, between: str) -> None:
    batch = [request(3), request(5)]
    processor.prepare_initial_token_inputs([batch])
    others, expected = {
        "prompt": ([*batch, prompt(4)], [0, 1, 2, 6]),
        "more": ([*batch, request(2)], [0, 1, 2, 3]),
        "fewer": (batch[1:], [0, 1]),
    }[between]
    assert offsets(processor.prepare_initial_token_inputs([others])) == expected
    again = processor.prepare_initial_token_inputs([batch])
    assert offsets(again) == [0, 1, 2]


def test_tokens_that_are_known_are_sent(processor: GptOssBatchProcessor) -> None:
    batch = [request(3), request(5)]
    processor.prepare_initial_token_inputs([batch])
    for token, context in enumerate(batch):
        context.realize_future_token(token)
    known: Any = processor.prepare_initial_token_inputs([batch])
    assert known.tokens.to_numpy().tolist() == [0, 1]
    again = processor.prepare_initial_token_inputs([batch])
    assert again.tokens is not known.tokens


def test_another_number_of_logits_is_sent(processor: GptOssBatchProcessor) -> None:
    batch = [request(3)]
    processor.prepare_initial_token_inputs([batch], return_n_logits=1)
    two = processor.prepare_initial_token_inputs([batch], return_n_logits=2)
    assert two.return_n_logits.to_numpy().tolist() == [2]
