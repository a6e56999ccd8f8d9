# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The sampler's operands come in order, so no signature is made to bind them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from max.driver import CPU, Buffer
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.sampling import sampling_logits_processor
from max.pipelines.sampling.sampling_logits_processor import SamplerInputs


def test_the_sampler_is_executed() -> None:
    context = TextContext(max_length=8, tokens=TokenBuffer(np.arange(4, dtype=np.int64)))
    inputs = SamplerInputs.create([context], CPU())
    logits = Buffer.from_numpy(np.zeros((1, 8), np.float32))
    before = Buffer.from_numpy(np.zeros((1, 0), np.int64))
    outputs = [Buffer.from_numpy(np.array([number])) for number in range(3)]
    executed: list[Any] = []

    def execute(*operands: Buffer) -> list[Buffer]:
        executed.extend(operands)
        return outputs

    # It cannot be called.
    sampler: Any = SimpleNamespace(execute=execute)
    results = sampling_logits_processor._sample_logits(sampler, logits, before, inputs)
    assert all(result is output for result, output in zip(results, outputs, strict=True))
    expected = [logits, before, *inputs.as_list()]
    assert all(found is operand for found, operand in zip(executed, expected, strict=True))
