# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What a pipeline's model can do is asked once, not in every step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from max.pipelines.lib.pipeline_variants import overlap_text_generation
from max.pipelines.lib.pipeline_variants.overlap_text_generation import (
    OverlapTextGenerationPipeline,
)

VISION = {"pop_vision_metrics": lambda: "images", "pop_video_metrics": lambda: "clips"}


def pipeline(**capabilities: Any) -> Any:
    made: Any = OverlapTextGenerationPipeline.__new__(OverlapTextGenerationPipeline)
    made._encoder_cache = None
    made._pipeline_model = SimpleNamespace(**capabilities)
    return made


@pytest.mark.parametrize(
    ("capabilities", "images", "clips"),
    [
        ({}, None, None),
        ({"pop_vision_metrics": lambda: "images"}, None, None),
        (VISION, "images", "clips"),
    ],
)
def test_a_model_with_metrics_is_asked_for_them(
    capabilities: Any, images: str | None, clips: str | None
) -> None:
    made = pipeline(**capabilities)
    for _ in range(2):
        assert made.batch_vision_metrics() == images
        assert made.batch_video_metrics() == clips


def test_the_protocol_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Counted(type):
        def __instancecheck__(cls, instance: object) -> bool:
            asked.append(instance)
            return False

    monkeypatch.setattr(
        overlap_text_generation, "SupportsPooledVisionMetrics", Counted("Protocol", (), {})
    )
    made = pipeline()
    for _ in range(3):
        made.batch_vision_metrics()
        made.batch_video_metrics()
    assert len(asked) == 1


@pytest.mark.parametrize("names", [(), ("tokens",), ("input_row_offsets",)])
def test_inputs_without_both_are_not_ragged(names: tuple[str, ...]) -> None:
    inputs = SimpleNamespace(**dict.fromkeys(names))
    assert not overlap_text_generation._has_ragged_tokens(inputs)


def test_inputs_with_both_are_ragged() -> None:
    inputs = SimpleNamespace(tokens=1, input_row_offsets=2)
    assert overlap_text_generation._has_ragged_tokens(inputs)
