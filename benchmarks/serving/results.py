# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What was measured: rows, a results file, and several files as one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from moe_layer.errors import BenchmarkError

Model = Literal["20b", "120b"]
MODELS: tuple[Model, ...] = ("20b", "120b")
BATCHES = (1, 8, 32, 64)
PROMPTS = {"1k": 1024, "8k": 8192, "32k": 32768}
"""Lengths that the time to first token is taken at."""

MEASURE = (
    "max serve, spoken to by max benchmark over /v1/completions: greedy, prompts of random words, "
    "no prefix cache. decode_tokens_per_s: batch / mean time per output token ((latency - time to "
    "first token) / (tokens - 1)) of so many requests made at once, 112 prompt and new_tokens new "
    "tokens each. limit_tokens_per_s: the step's expected bytes, weights and KV cache, at the rate "
    "of a 4 GiB copy within device memory, bytes read and written. ttft_ms: median of three "
    "requests, one at a time. peak_device_gib: nvidia-smi every 100 ms, over the whole run, less "
    "what was in use before it. load_s: from the start of the command until /health answers, less "
    "compile_s. compile_s: building and compiling graphs, by MAX's log. copy_s: the checkpoint's "
    "shards, memory-mapped and in the page cache, to device memory with max.driver, nothing pinned."
)


@dataclass
class Row:
    """One line of the results; what was not measured is None."""

    model: Model
    batch: int
    device_graphs: bool
    decode_tokens_per_s: float | None = None
    limit_tokens_per_s: float | None = None
    ttft_ms: dict[str, float] = field(default_factory=dict)
    peak_device_gib: float | None = None
    load_s: float | None = None
    copy_s: float | None = None
    compile_s: float | None = None
    new_tokens: int | None = None

    @property
    def key(self) -> tuple[str, int, bool]:
        """What tells rows apart."""
        return self.model, self.batch, self.device_graphs


@dataclass
class Run:
    """One server: how it was started, and where the time went until it was ready."""

    model: Model
    device_graphs: bool
    max_length: int
    device_gib: float | None
    """The device memory that it was limited to; None for all of it."""
    utilization: float | None
    """How much of it MAX planned with; None for MAX's default."""
    checkpoint_gb: float
    ready_s: float
    phases_s: dict[str, float]


@dataclass
class Results:
    """Everything that a results file holds."""

    device: str
    date: str
    versions: dict[str, str] = field(default_factory=dict)
    copy_tb_per_s: float | None = None
    runs: list[Run] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """What did not work, and why."""

    def missing(self) -> list[str]:
        """Names what a complete file would also hold."""
        found = {row.key: row for row in self.rows}
        lines = []
        for model in MODELS:
            for graphs in (True, False):
                rows = [found.get((model, batch, graphs)) for batch in BATCHES]
                for what in ("decode_tokens_per_s", "peak_device_gib", "load_s", "copy_s"):
                    gaps = [
                        str(batch)
                        for batch, row in zip(BATCHES, rows, strict=True)
                        if row is None or getattr(row, what) is None
                    ]
                    if gaps:
                        lines.append(
                            f"{what} of {run_name(model, graphs)}, batch {', '.join(gaps)}"
                        )
                for length in ("1k", "8k"):
                    if not any(row and length in row.ttft_ms for row in rows):
                        lines.append(
                            f"time to first token of {run_name(model, graphs)} at {length}"
                        )
        return lines

    def to_json(self) -> dict[str, Any]:
        """The content of a results file."""
        content: dict[str, Any] = {
            "device": self.device,
            "date": self.date,
            "versions": self.versions,
            "measure": MEASURE,
            "copy_tb_per_s": self.copy_tb_per_s,
            "runs": [asdict(run) for run in self.runs],
        }
        if self.failures:
            content["failures"] = self.failures
        content["rows"] = [asdict(row) for row in sorted(self.rows, key=_order)]
        return content


def read_results(path: Path) -> Results:
    """Reads a results file.

    Raises:
        BenchmarkError: If it is missing or something else.
    """
    try:
        content = json.loads(path.read_text())
        return Results(
            content["device"],
            content["date"],
            dict(content["versions"]),
            content["copy_tb_per_s"],
            [Run(**run) for run in content["runs"]],
            [Row(**row) for row in content["rows"]],
            list(content.get("failures", [])),
        )
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} is no results file: {error!r}.") from error


def merge_results(paths: Iterable[Path]) -> Results:
    """Reads several files of one device and date as one.

    The larger rate of a copy counts, and the limits of all rows are made to it.

    Raises:
        BenchmarkError: If the files differ in device, date or versions, or two have the same row.
    """
    first, *others = paths
    merged = read_results(first)
    for path in others:
        other = read_results(path)
        for what in ("device", "date", "versions"):
            if getattr(merged, what) != getattr(other, what):
                raise BenchmarkError(
                    f"{path} is of {what} {getattr(other, what)}, and {first} of "
                    f"{getattr(merged, what)}: they cannot be merged."
                )
        twice = {row.key for row in merged.rows} & {row.key for row in other.rows}
        if twice:
            raise BenchmarkError(f"{path} cannot be merged: there are two rows of {min(twice)}.")
        _use_rate(merged, other.copy_tb_per_s)
        _use_rate(other, merged.copy_tb_per_s)
        merged.runs += other.runs
        merged.rows += other.rows
        merged.failures += other.failures
    return merged


def _use_rate(results: Results, rate: float | None) -> None:
    if rate is None or (results.copy_tb_per_s or rate) >= rate:
        results.copy_tb_per_s = results.copy_tb_per_s or rate
        return
    for row in results.rows:
        if row.limit_tokens_per_s is not None and results.copy_tb_per_s:
            row.limit_tokens_per_s = round(row.limit_tokens_per_s * rate / results.copy_tb_per_s, 1)
    results.copy_tb_per_s = rate


def _order(row: Row) -> tuple[int, bool, int]:
    return MODELS.index(row.model), not row.device_graphs, row.batch


def run_name(model: str, device_graphs: bool) -> str:
    """What a server is called in messages."""
    return f"{model} {'with' if device_graphs else 'without'} device graphs"
