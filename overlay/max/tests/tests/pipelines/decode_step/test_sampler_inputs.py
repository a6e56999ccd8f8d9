# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Sampling parameters are made anew when they change, and seeds in every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from max.driver import CPU
from max.pipelines.context import SamplingParams, TextContext, TokenBuffer
from max.pipelines.sampling.sampling_logits_processor import SamplerInputs

FIXED = ("top_k", "max_k", "temperature", "top_p", "min_top_p", "min_p")


def context(*, seed: int, **parameters: Any) -> TextContext:
    return TextContext(
        max_length=32,
        tokens=TokenBuffer(np.arange(4, dtype=np.int64)),
        sampling_params=SamplingParams(seed=seed, **parameters),
    )


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SamplerInputs, "_last", None)


def assert_equal(inputs: SamplerInputs, batch: list[TextContext]) -> None:
    expected = SamplerInputs.create(batch, CPU())
    for name in (*FIXED, "seed"):
        np.testing.assert_array_equal(
            getattr(inputs, name).to_numpy(), getattr(expected, name).to_numpy()
        )


def test_a_batch_that_goes_on_gets_new_seeds_alone() -> None:
    batch = [context(seed=1, temperature=0.5), context(seed=2, top_k=3)]
    first = SamplerInputs.reuse(batch, CPU())
    assert_equal(first, batch)
    for request in batch:
        request.update(7)
    second = SamplerInputs.reuse(batch, CPU())
    assert_equal(second, batch)
    assert all(getattr(second, name) is getattr(first, name) for name in FIXED)
    assert (second.seed.to_numpy() == first.seed.to_numpy() + 1).all()


@pytest.mark.parametrize(
    "parameters", [{"temperature": 0.25}, {"top_k": 9}, {"top_p": 0.5}, {"min_p": 0.125}]
)
def test_other_parameters_are_made_anew(parameters: dict[str, float]) -> None:
    SamplerInputs.reuse([context(seed=1)], CPU())
    other = [context(seed=1, **parameters)]
    assert_equal(SamplerInputs.reuse(other, CPU()), other)


def test_another_batch_is_made_anew() -> None:
    batch = [context(seed=1, temperature=0.5), context(seed=2)]
    SamplerInputs.reuse(batch, CPU())
    for other in (batch[::-1], batch[:1], [*batch, context(seed=3)]):
        assert_equal(SamplerInputs.reuse(other, CPU()), other)
