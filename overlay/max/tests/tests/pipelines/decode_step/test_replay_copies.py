# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A captured step copies the inputs that are not where its graph reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kv_requests import cache_params
from max.driver import CPU, Buffer, Device
from max.nn.kv_cache import BatchCharacteristics
from max.pipelines.lib import graph_capture
from max.pipelines.lib.graph_capture import ServeGraphCaptureRunner

SHAPE = BatchCharacteristics(batch_size=1, max_prompt_length=1, max_cache_valid_length=256)


def buffer(*values: int) -> Buffer:
    return Buffer.from_numpy(np.array(values, np.int64))


def test_only_what_moved_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[Any] = []
    engine: Any = SimpleNamespace(replay=lambda key, *inputs: replayed.extend(inputs))
    unused: Any = None
    runner = ServeGraphCaptureRunner(
        model=engine,
        kv_params=cache_params(None),
        warmup_model_inputs=unused,
        max_cache_length_upper_bound=256,
        max_batch_size=1,
    )
    key = runner._resolve_graph_key(1, 256, 1)
    tokens, lengths, empty = buffer(1), buffer(2, 3), buffer()
    runner._records[SHAPE] = key
    runner.graph_entries[key] = ((tokens, lengths, empty), unused)

    copied: list[tuple[Buffer, Buffer]] = []
    monkeypatch.setattr(
        graph_capture,
        "batch_inplace_copy",
        lambda targets, sources: copied.extend(zip(targets, sources, strict=True)),
    )
    # Inputs in host memory are never copied, so these have to pass for a device's.
    monkeypatch.setattr(Device, "is_host", property(lambda device: False))
    assert not CPU().is_host
    sampled = buffer(7)
    inputs: Any = SimpleNamespace(buffers=(sampled, lengths[0:2], empty))
    runner.replay(model_inputs=inputs, batch_characteristics=SHAPE)
    ((target, source),) = copied
    assert target is tokens
    assert source is sampled
    assert len(replayed) == 3
    for operand, captured in zip(replayed, (tokens, lengths, empty), strict=True):
        assert operand is captured
