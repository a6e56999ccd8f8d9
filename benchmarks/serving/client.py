# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Asks a server for completions with MAX's own client, ``max benchmark``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer  # type: ignore[import-untyped]

from moe_layer.errors import BenchmarkError
from serving.processes import MAX, environment

_SAMPLE = 4096
"""Tokens that the length of a random prompt's text is taken from."""


@dataclass(frozen=True)
class Workload:
    """What is asked of the server.

    Attributes:
        prompt_tokens: Tokens of a prompt, of random words.
        output_tokens: Tokens of a completion, whatever they are.
        concurrency: Numbers of requests at a time, one number after the other.
        rounds: How often so many requests are made.
    """

    prompt_tokens: int
    output_tokens: int
    concurrency: tuple[int, ...]
    rounds: int = 1


@dataclass(frozen=True)
class Answers:
    """What ``max benchmark`` measured at one concurrency."""

    prompt_tokens: float
    """Tokens of a prompt, the mean."""
    ttft_ms: float
    """Time to first token, the median over requests."""
    tpot_ms: float
    """(latency - time to first token) / (tokens - 1), the mean over requests.

    The tokens are those asked for: completions do not end before. The client's own figure counts
    tokens of the completions' text encoded again, which for random weights are several times more.
    """


def ask(
    port: int, checkpoint: Path, workload: Workload, folder: Path, timeout: float
) -> dict[int, Answers]:
    """Run the client and return its figures by concurrency.

    Args:
        port: Where the server listens, on 127.0.0.1.
        checkpoint: The served model, and the tokenizer that prompts are made with.
        workload: What to ask.
        folder: Where the client puts its files.
        timeout: Seconds that it may take.

    Raises:
        BenchmarkError: If the client or one of its requests fails.
    """
    words = words_for(checkpoint / "tokenizer.json", workload.prompt_tokens)
    command = client_command(port, checkpoint, workload, words, folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"max benchmark took more than {timeout:.0f} s.") from error
    (folder / "log").write_text(done.stdout)
    if done.returncode:
        raise BenchmarkError(f"max benchmark failed:\n{done.stdout.strip()[-2000:]}")
    return {
        level: read_answers(
            folder / f"results-{level}-median.json", level * workload.rounds, workload.output_tokens
        )
        for level in workload.concurrency
    }


def client_command(
    port: int, checkpoint: Path, workload: Workload, words: int, folder: Path
) -> Sequence[str]:
    """The client's command; ``words`` is the number of ids that a prompt is decoded from."""
    options = {
        "model": checkpoint,
        "host": "127.0.0.1",
        "port": port,
        "endpoint": "/v1/completions",
        "dataset-name": "random",
        "random-input-len": words,
        "random-output-len": workload.output_tokens,
        "temperature": 0,
        "max-concurrency": ",".join(map(str, workload.concurrency)),
        "num-prompts-multiplier": workload.rounds,
        # By default it leaves out as many requests at both ends as there are at a time.
        "skip-first-n-requests": 0,
        "skip-last-n-requests": 0,
        "log-dir": folder,
    }
    command = [*MAX, "benchmark"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    return [*command, *(f"--no-collect-{what}-stats" for what in ("gpu", "cpu", "server"))]


def read_answers(file: Path, requests: int, output_tokens: int) -> Answers:
    """Read what the client wrote of one concurrency.

    Args:
        file: The client's results.
        requests: The requests it made.
        output_tokens: The tokens of each completion.

    Raises:
        BenchmarkError: If the file is missing or something else, or a request failed.
    """
    try:
        content = json.loads(file.read_text())
        if content["completed"] != requests or content["failures"]:
            raise BenchmarkError(f"{content['completed']} of {requests} requests completed.")
        lengths = content["input_lens"]
        decode_ms = float(content["mean_latency_ms"]) - float(content["mean_ttft_ms"])
        return Answers(
            prompt_tokens=sum(lengths) / len(lengths),
            ttft_ms=float(content["median_ttft_ms"]),
            tpot_ms=decode_ms / max(1, output_tokens - 1),
        )
    except OSError as error:
        raise BenchmarkError(f"max benchmark wrote no {file}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise BenchmarkError(f"{file} is no result of max benchmark: {error!r}.") from error


def words_for(tokenizer_file: Path, tokens: int) -> int:
    """How many neighbouring ids decode to a text of about ``tokens`` tokens, and no more.

    The client decodes random ids, and the server encodes their text again: into more tokens,
    where the tokenizer has no merges that make the same ids of it.

    Args:
        tokenizer_file: A ``tokenizer.json``.
        tokens: The wanted length of a prompt.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    ordinary = tokenizer.get_vocab_size(with_added_tokens=False)
    start = ordinary // 2
    ids = range(start, min(start + _SAMPLE, ordinary))
    encoded = tokenizer.encode(tokenizer.decode(list(ids)), add_special_tokens=False)
    return max(1, tokens * len(ids) // len(encoded.ids))
