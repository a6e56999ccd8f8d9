# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""MAX's own client against a small HTTP server, and what is read of its results."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_server import FakeServer

from checkpoint import PRESETS, make_checkpoint
from moe_layer.errors import BenchmarkError
from serving.client import Workload, ask, read_answers, words_for

WORDS_TOKENS = 7
"""Tokens of a made-up word of a made checkpoint: a space and three syllables, a token a byte."""


@contextmanager
def running(server: FakeServer) -> Iterator[FakeServer]:
    """Serve from another thread until the end of the context."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy checkpoint as scripts/make_checkpoint.py makes it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, PRESETS["toy"], seed=0, force=False, advance=lambda written: None)
    return folder


def test_asks_as_told(checkpoint: Path, tmp_path: Path) -> None:
    workload = Workload(prompt_tokens=71, output_tokens=5, concurrency=(2,), rounds=2)
    with running(FakeServer()) as server:
        answers = ask(server.server_port, checkpoint, workload, tmp_path, 300)
    # One comes before those that count.
    assert len(server.asked) == 1 + 2 * 2
    for request in server.asked:
        assert request["stream"]
        assert request["ignore_eos"]
        assert (request["max_tokens"], request["temperature"]) == (5, 0)
        # A prompt that begins near the vocabulary's end goes on with single letters.
        assert len(request["prompt"]) <= 71
    assert max(len(request["prompt"]) for request in server.asked) == 10 * WORDS_TOKENS
    assert answers.keys() == {2}
    assert 10 <= answers[2].prompt_tokens <= 71
    assert answers[2].ttft_ms > 0
    assert answers[2].tpot_ms > 0


@pytest.mark.parametrize(("tokens", "words"), [(6, 1), (112, 16), (1024, 146)])
def test_a_prompt_is_as_long_as_asked_or_shorter(checkpoint: Path, tokens: int, words: int) -> None:
    assert words_for(checkpoint / "tokenizer.json", tokens) == words


RESULT = {
    "completed": 2,
    "failures": 0,
    "input_lens": [10, 20],
    "median_ttft_ms": 30.0,
    "mean_ttft_ms": 40.0,
    "mean_latency_ms": 80.0,
    # Of text that was encoded again.
    "mean_tpot_ms": 0.5,
}


def test_reads_a_result(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps(RESULT))
    answers = read_answers(file, 2, output_tokens=11)
    assert (answers.prompt_tokens, answers.ttft_ms, answers.tpot_ms) == (15, 30, 4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"completed": 1}, "1 of 2 requests completed"),
        ({"failures": 1}, "2 of 2 requests completed"),
        ({"mean_latency_ms": None}, "is no result of max benchmark"),
        ({"input_lens": []}, "is no result of max benchmark"),
    ],
)
def test_a_result_that_does_not_count(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**RESULT, **change}))
    with pytest.raises(BenchmarkError, match=message):
        read_answers(file, 2, output_tokens=11)


def test_no_result(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="max benchmark wrote no"):
        read_answers(tmp_path / "result.json", 2, output_tokens=11)
