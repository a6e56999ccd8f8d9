# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Lookup tables are sent when they change, and cache lengths in every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kv_requests import MAX_LENGTH, PAGE, cache_manager, decode, request
from max.driver import Buffer
from max.nn.kv_cache import BatchCharacteristics
from max.pipelines.context import TextContext
from max.pipelines.kv_cache.paged_kv_cache.jenga_cache_manager import JengaKVCacheManager

from max import tree

STEPS = 2 * PAGE + 3


def forward(
    manager: JengaKVCacheManager, batch: list[TextContext], *, bound: int = MAX_LENGTH
) -> Any:
    """A captured step's inputs."""
    for context in batch:
        if not manager.contains(context):
            manager.claim(context)
        manager.alloc(context)
    return manager.runtime_inputs(
        [batch],
        max_cache_length=MAX_LENGTH,
        batch_characteristics=BatchCharacteristics(
            batch_size=len(batch), max_prompt_length=1, max_cache_valid_length=bound
        ),
    )


def anew(manager: JengaKVCacheManager, batch: list[TextContext], **options: int) -> Any:
    """The same, where nothing is kept."""
    manager._last_forward = None
    return forward(manager, batch, **options)


def values(inputs: Any) -> list[Any]:
    """What a graph reads of them, without the pages."""
    leaves: list[Buffer] = tree.leaves(inputs)
    return [leaf.to_numpy().tolist() for leaf in leaves if leaf.rank < 4]


def decoding(*prompts: int) -> list[TextContext]:
    return [request(prompt) for prompt in prompts]


def test_a_step_within_its_pages_sends_lengths_alone() -> None:
    manager = cache_manager()
    batch = decoding(5, PAGE + 20)
    first = forward(manager, batch)
    for context in batch:
        decode(context)
        manager.step(context)
    second = forward(manager, batch)
    assert second is first
    assert values(second) == values(anew(manager, batch))
    lengths = second["full_attention"][0].cache_lengths
    np.testing.assert_array_equal(lengths.to_numpy(), [6, PAGE + 21])


def test_every_step_reads_what_it_would_have_been_sent() -> None:
    manager = cache_manager()
    batch = decoding(5, 60, 2 * PAGE - 1)
    kept, last = 0, None
    for step in range(STEPS):
        inputs = forward(manager, batch)
        kept += inputs is last
        last = inputs
        # Not in every step: comparing sends the tables.
        if step % 10 == 0:
            sent = values(inputs)
            last = anew(manager, batch)
            assert sent == values(last)
        for context in batch:
            decode(context)
            manager.step(context)
    # A request takes a page every PAGE steps, and a window drops one.
    assert kept > STEPS - 20


@pytest.mark.parametrize("change", ["order", "left", "joined", "other"])
def test_another_batch_gets_tables_of_its_own(change: str) -> None:
    manager = cache_manager()
    batch = decoding(5, 60, 2 * PAGE)
    first = forward(manager, batch)
    now = {
        "order": batch[::-1],
        "left": batch[1:],
        "joined": [*batch, *decoding(9)],
        "other": [*batch[:2], *decoding(2 * PAGE)],
    }[change]
    inputs = forward(manager, now)
    assert inputs is not first
    assert values(inputs) == values(anew(manager, now))


def test_another_graph_gets_inputs_of_its_own() -> None:
    manager = cache_manager()
    batch = decoding(5)
    first = forward(manager, batch, bound=PAGE)
    second = forward(manager, batch, bound=2 * PAGE)
    assert second is not first
    assert values(second) == values(anew(manager, batch, bound=2 * PAGE))


def test_a_length_beyond_the_graph_is_refused_as_before() -> None:
    manager = cache_manager()
    batch = decoding(5)
    forward(manager, batch, bound=6)
    decode(batch[0])
    with pytest.raises(ValueError, match="exceeds"):
        forward(manager, batch, bound=6)


def test_steps_outside_graphs_are_made_anew() -> None:
    manager = cache_manager()
    batch = decoding(5)
    forward(manager, batch)
    first = manager.runtime_inputs([batch])
    assert manager.runtime_inputs([batch]) is not first
