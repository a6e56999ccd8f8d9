# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The sampler counts the seeds of a batch that decodes on, on the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from max.driver import CPU, Buffer
from max.pipelines.context import SamplingParams, TextContext, TokenBuffer
from max.pipelines.context.logit_processors_type import BatchProcessorInputs
from max.pipelines.sampling.sampling_logits_processor import FusedSamplingProcessor, SamplerInputs


def context(*, seed: int) -> TextContext:
    return TextContext(
        max_length=32,
        tokens=TokenBuffer(np.arange(4, dtype=np.int64)),
        sampling_params=SamplingParams(seed=seed),
    )


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SamplerInputs, "_last", None)


class CountingSampler:
    """A sampler's outputs, and the seeds that it was given."""

    def __init__(self) -> None:
        self.seeds: list[Buffer] = []
        self.returned: list[Buffer] = []

    def execute(self, *inputs: Buffer) -> list[Buffer]:
        seed = inputs[-1]
        self.seeds.append(seed)
        with np.errstate(over="ignore"):
            self.returned.append(Buffer.from_numpy(seed.to_numpy() + np.uint64(1)))
        tokens = Buffer.from_numpy(np.zeros(seed.shape, np.int64))
        return [tokens, tokens.view(tokens.dtype, (*seed.shape, 1)), self.returned[-1]]

    __call__ = execute


def sample(sampler: Any, batch: list[TextContext]) -> None:
    config: Any = SimpleNamespace(
        sampling=SimpleNamespace(enable_penalties=False, enable_min_tokens=False)
    )
    processor = FusedSamplingProcessor(
        sampler=sampler, pipeline_config=config, context_batch=batch, device=CPU()
    )
    logits = Buffer.from_numpy(np.zeros((len(batch), 8), np.float32))
    processor(BatchProcessorInputs(logits=logits, logit_offsets=None, context_batch=batch))
    for request in batch:
        request.update(7)


def seeds(batch: list[TextContext]) -> list[int]:
    numbers: list[int] = SamplerInputs.create(batch, CPU()).seed.to_numpy().tolist()
    return numbers


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 5])
def test_a_batch_that_goes_on_takes_the_samplers_seeds(seed: int) -> None:
    sampler = CountingSampler()
    batch = [context(seed=seed), context(seed=3)]
    for step in range(4):
        expected = seeds(batch)
        sample(sampler, batch)
        assert sampler.seeds[step].to_numpy().tolist() == expected
        if step:
            assert sampler.seeds[step] is sampler.returned[step - 1]


@pytest.mark.parametrize("change", ["order", "left", "skipped"])
def test_another_batch_gets_seeds_of_its_own(change: str) -> None:
    sampler = CountingSampler()
    batch = [context(seed=1), context(seed=2)]
    sample(sampler, batch)
    if change == "skipped":
        batch[0].update(7)
    now = {"order": batch[::-1], "left": batch[1:], "skipped": batch}[change]
    expected = seeds(now)
    sample(sampler, now)
    assert sampler.seeds[1].to_numpy().tolist() == expected
    assert sampler.seeds[1] is not sampler.returned[0]
