# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A batch that decodes on takes the last step's tokens as they are.

The processor runs on GPUs alone. Here its indices come from the host, and its graph is one that
must not run.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import Buffer
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.lib.pipeline_variants import overlap_text_generation
from max.pipelines.modeling.types import TextGenerationInputs

OUT_OF_BOUNDS = overlap_text_generation._OOB_IDX


class HostProcessor(overlap_text_generation.RealizeFutureTokenProcessor):
    """Computes indices as the base class does, but in host memory."""

    def __init__(self) -> None:
        self._num_speculative_tokens = 0
        self._mapped_requests = None
        self._mappings = None
        self.computed = 0
        self.scattered: list[Any] = []
        graph: Any = SimpleNamespace(execute=self._scatter)
        self._graph = graph
        self._num_devices = 1

    def _scatter(self, *operands: Buffer) -> tuple[Buffer]:
        self.scattered.append([operand.to_numpy().tolist() for operand in operands])
        return (Buffer.from_numpy(np.array([-1])),)

    def _compute_mappings(self, prev_batch: Any, inputs: Any) -> tuple[Buffer, Buffer] | None:
        self.computed += 1
        before = [context.request_id for context in prev_batch.inputs.flat_batch]
        now = [context.request_id for context in inputs.flat_batch]
        prev_to_curr = [now.index(r) if r in now else OUT_OF_BOUNDS for r in before]
        curr_to_prev = [before.index(r) if r in before else OUT_OF_BOUNDS for r in now]
        if all(index == OUT_OF_BOUNDS for index in prev_to_curr):
            return None
        return Buffer.from_numpy(np.array(prev_to_curr)), Buffer.from_numpy(np.array(curr_to_prev))


def requests(count: int) -> list[TextContext]:
    contexts = [
        TextContext(max_length=32, tokens=TokenBuffer(np.arange(4, dtype=np.int64)))
        for _ in range(count)
    ]
    for context in contexts:
        context.update_with_future_token()
    return contexts


def step(
    processor: HostProcessor, before: list[TextContext], now: list[TextContext], tokens: int
) -> tuple[Any, Buffer]:
    """Realizes a step of ``tokens`` tokens, and returns its inputs and the sampled tokens."""
    sampled = Buffer.from_numpy(np.arange(100, 100 + len(before)))
    model_inputs: Any = SimpleNamespace(
        tokens=Buffer.from_numpy(np.zeros(tokens, np.int64)),
        input_row_offsets=Buffer.from_numpy(np.arange(len(now) + 1, dtype=np.uint32)),
    )
    prev_batch: Any = SimpleNamespace(
        generated_tokens_device=sampled,
        inputs=TextGenerationInputs(batches=[before]),
        _is_processed=False,
    )
    processor.realize_future_tokens(
        prev_batch=prev_batch,
        inputs=TextGenerationInputs(batches=[now]),
        model_inputs=model_inputs,
    )
    return model_inputs, sampled


def test_the_same_batch_takes_the_tokens_as_they_are() -> None:
    processor = HostProcessor()
    batch = requests(3)
    for _ in range(3):
        inputs, sampled = step(processor, batch, batch, tokens=3)
        assert inputs.tokens is sampled
    assert processor.computed == 1
    assert not processor.scattered


@pytest.mark.parametrize("change", ["order", "left", "joined", "prompt"])
def test_another_batch_is_scattered(change: str) -> None:
    processor = HostProcessor()
    batch = requests(3)
    step(processor, batch, batch, tokens=3)
    now, tokens, expected = {
        "order": (batch[::-1], 3, [2, 1, 0]),
        "left": (batch[1:], 2, [OUT_OF_BOUNDS, 0, 1]),
        "joined": ([*batch, *requests(1)], 4, [0, 1, 2]),
        # The same requests, but one still reads its prompt.
        "prompt": (batch, 9, [0, 1, 2]),
    }[change]
    inputs, sampled = step(processor, batch, now, tokens=tokens)
    assert inputs.tokens is not sampled
    assert processor.scattered[-1][0] == expected


def test_a_batch_of_others_keeps_its_tokens() -> None:
    processor = HostProcessor()
    inputs, sampled = step(processor, requests(2), requests(2), tokens=2)
    assert inputs.tokens is not sampled
    assert not processor.scattered
