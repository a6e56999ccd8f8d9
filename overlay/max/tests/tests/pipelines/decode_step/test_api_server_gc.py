# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The collector passes over what an API server has when it is ready, and only while it serves."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from unittest.mock import MagicMock

import pytest
from max.pipelines.context import TextContext
from max.pipelines.lib import PIPELINE_REGISTRY
from max.serve import api_server
from max.serve.config import MetricRecordingMethod, Settings
from max.serve.pipelines.echo_gen import EchoPipelineTokenizer


@asynccontextmanager
async def _no_worker(*_arguments: object, **_options: object) -> AsyncGenerator[MagicMock]:
    yield MagicMock()


def test_what_is_there_at_the_start_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_server, "start_model_worker", _no_worker)
    monkeypatch.setattr(api_server, "detect_decision_format", lambda _path: None)
    monkeypatch.setattr(
        PIPELINE_REGISTRY, "retrieve_context_type", lambda *_args, **_options: TextContext
    )
    settings = Settings(
        MAX_SERVE_DISABLE_TELEMETRY=True,
        MAX_SERVE_METRIC_RECORDING_METHOD=MetricRecordingMethod.NOOP,
    )
    config = MagicMock(lora=None)
    serving = api_server.ServingTokenGeneratorSettings(
        model_factory=MagicMock(), pipeline_config=config, tokenizer=EchoPipelineTokenizer()
    )

    async def serve() -> int:
        app = api_server.fastapi_app(settings, serving)
        async with app.router.lifespan_context(app):
            return gc.get_freeze_count()

    before = gc.get_freeze_count()
    assert asyncio.run(serve()) > before + 1000
    assert gc.get_freeze_count() == 0
