# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""``max serve`` on a made checkpoint, spoken to by OpenAI's client."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import openai
import pytest
from max_command import Server, serve

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

pytest_plugins = ("gpu_checkpoint",)
pytestmark = pytest.mark.gpu

TOKENS = 32
CONCURRENT = 64
OPTIONS = ["--max-batch-size", str(CONCURRENT), "--max-length", "1024"]
QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "You are terse."},
    {"role": "user", "content": "Why is the sky blue?"},
]


@pytest.fixture(scope="module")
def server(
    checkpoint: Path, graph_options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("serve") / "log"
    with serve(checkpoint, [*OPTIONS, *graph_options], log) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_unstreamed_and_streamed_completions_are_the_same(
    client: openai.OpenAI, checkpoint: Path
) -> None:
    whole = client.chat.completions.create(
        model=str(checkpoint), messages=QUESTION, max_tokens=TOKENS, temperature=0, seed=1
    )
    (choice,) = whole.choices
    assert choice.finish_reason in ("length", "stop")
    assert choice.message.content
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= TOKENS
    chunks = list(
        client.chat.completions.create(
            model=str(checkpoint),
            messages=QUESTION,
            max_tokens=TOKENS,
            temperature=0,
            seed=1,
            stream=True,
        )
    )
    parts = [part.choices[0].delta.content or "" for part in chunks if part.choices]
    assert sum(map(bool, parts)) > 1
    assert "".join(parts) == choice.message.content
    assert [part.choices[0].finish_reason for part in chunks if part.choices][-1]


def test_concurrent_requests_all_complete(server: Server, checkpoint: Path) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> int:
        completion = await client.chat.completions.create(
            model=str(checkpoint),
            messages=[{"role": "user", "content": f"{number} " * (1 + 3 * number)}],
            max_tokens=TOKENS,
        )
        assert completion.choices[0].finish_reason in ("length", "stop")
        assert completion.usage is not None
        return completion.usage.completion_tokens

    async def ask_all() -> list[int]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(CONCURRENT)))

    counts = asyncio.run(ask_all())
    assert len(counts) == CONCURRENT
    assert all(0 < count <= TOKENS for count in counts)


# max turns SIGTERM into an exit with 128 + 15; an interrupt is reported by the command line as 1.
@pytest.mark.parametrize(("sent", "codes"), [(signal.SIGTERM, {143}), (signal.SIGINT, {1, 130})])
def test_stops_cleanly(
    sent: signal.Signals,
    codes: set[int],
    checkpoint: Path,
    graph_options: list[str],
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with serve(checkpoint, [*OPTIONS, *graph_options], log) as running:
        assert running.stop(sent) in codes, log.read_text()
        assert running.group_is_gone(), log.read_text()
    assert "Traceback" not in log.read_text()
