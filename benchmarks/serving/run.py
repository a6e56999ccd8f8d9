# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures on the GPU host: checkpoint, plain copy, and a server with and without device graphs."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from checkpoint import PRESETS, CheckpointError, make_checkpoint
from moe_layer.errors import BenchmarkError
from moe_layer.run import query_device
from serving.client import Answers, Workload, ask
from serving.limits import limit_tokens_per_s
from serving.memory import PeakMemory, limited_memory, manager_variables
from serving.processes import environment
from serving.results import BATCHES, PROMPTS, Model, Results, Row, Run, run_name
from serving.server import Server, serve, serve_command

DECODE = Workload(prompt_tokens=112, output_tokens=1024, concurrency=BATCHES)
FIRST_TOKEN_ROUNDS = 3
COPIES = (sys.executable, "-m", "serving.copies")
PACKAGES = {"max": "max", "mojo": "mojo-compiler"}


@dataclass(frozen=True)
class Options:
    """What to measure, and with what.

    Attributes:
        model: The sizes of the checkpoint.
        checkpoint: Its folder; made with random weights if it holds none.
        device_graphs: Whether decode steps are captured, for each server in turn.
        device_gib: Device memory that a server may use; all of it for None.
        utilization: How much of its memory MAX plans with; None for MAX's default.
        max_length: Longest context that the server accepts, in tokens.
        precompiled_mefs: Graphs that ``max warm-cache`` compiled elsewhere.
        logs: Folder for what the servers and the client print and write.
        start_timeout: Seconds until a server has to be ready.
        client_timeout: Seconds that one run of the client may take.
    """

    model: Model
    checkpoint: Path
    device_graphs: tuple[bool, ...]
    device_gib: float | None
    utilization: float | None
    max_length: int
    precompiled_mefs: Path | None
    logs: Path
    start_timeout: float
    client_timeout: float


def measure(options: Options, save: Callable[[Results], None]) -> Results:
    """Measures everything; what fails is named in the results, and the rest goes on.

    Args:
        options: What to measure.
        save: Called with all results so far, whenever there are more.

    Raises:
        BenchmarkError: If there is no GPU, or the checkpoint cannot be made.
    """
    device, driver = query_device()
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    results = Results(device, today, {**_versions(), "driver": driver})
    _prepare(options)
    copies = measure_copies(options.checkpoint, options.client_timeout)
    results.copy_tb_per_s = copies["copy_tb_per_s"]
    for device_graphs in options.device_graphs:
        rows = [
            Row(
                options.model,
                batch,
                device_graphs,
                copy_s=copies["copy_s"],
                new_tokens=DECODE.output_tokens,
            )
            for batch in BATCHES
        ]
        results.rows += rows
        try:
            with limited_memory(options.device_gib):
                _measure_server(options, rows, results, copies["checkpoint_bytes"], save)
        except BenchmarkError as error:
            results.failures.append(f"{run_name(options.model, device_graphs)}: {error}")
        finally:
            # Interrupted, too: the peak of memory is known by now.
            save(results)
    return results


def measure_copies(checkpoint: Path, timeout: float) -> dict[str, Any]:
    """Runs ``serving.copies`` and returns what it prints.

    Raises:
        BenchmarkError: If it fails.
    """
    try:
        done = subprocess.run(
            [*COPIES, str(checkpoint)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
        report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"the plain copy failed:\n{error.stderr.strip()[-2000:]}") from error
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        raise BenchmarkError(f"the plain copy printed no figures: {error}") from error
    print(f"plain copy: {report}", flush=True)
    return report


def _measure_server(
    options: Options,
    rows: list[Row],
    results: Results,
    checkpoint_bytes: int,
    save: Callable[[Results], None],
) -> None:
    """Fills the rows of one server; raises where it does not start."""
    device_graphs = rows[0].device_graphs
    name = run_name(options.model, device_graphs)
    command = serve_command(
        options.checkpoint,
        device_graphs,
        BATCHES[-1],
        options.max_length,
        options.utilization,
        options.precompiled_mefs,
    )
    logs = options.logs / ("device-graphs" if device_graphs else "no-device-graphs")
    logs.mkdir(parents=True, exist_ok=True)
    variables = manager_variables(options.device_gib)
    peak = PeakMemory()
    try:
        with serve(command, variables, logs / "server.log", options.start_timeout) as server:
            _record_start(options, rows, results, server, checkpoint_bytes)
            save(results)
            for what, workload in _workloads(options.max_length).items():
                try:
                    answers = ask(
                        server.port,
                        options.checkpoint,
                        workload,
                        logs / what,
                        options.client_timeout,
                    )
                    _record_answers(options.model, rows, results, what, answers)
                except BenchmarkError as error:
                    results.failures.append(f"{name}, {what}: {error}")
                print(f"{name}, {what}: done", flush=True)
                save(results)
    finally:
        peak_gib = round(peak.close(), 2)
        for row in rows:
            row.peak_device_gib = peak_gib


def _workloads(max_length: int) -> dict[str, Workload]:
    first_token = {
        name: Workload(tokens, 2, (1,), FIRST_TOKEN_ROUNDS)
        for name, tokens in PROMPTS.items()
        if tokens + 2 <= max_length
    }
    return {"decode": DECODE, **first_token}


def _record_start(
    options: Options, rows: list[Row], results: Results, server: Server, checkpoint_bytes: int
) -> None:
    compile_s = server.phases_s.get("compile")
    for row in rows:
        row.compile_s = compile_s
        row.load_s = round(server.ready_s - (compile_s or 0.0), 2)
    results.runs.append(
        Run(
            options.model,
            rows[0].device_graphs,
            options.max_length,
            options.device_gib,
            options.utilization,
            round(checkpoint_bytes / 1e9, 2),
            round(server.ready_s, 2),
            server.phases_s,
        )
    )


def _record_answers(
    model: Model, rows: list[Row], results: Results, what: str, answers: dict[int, Answers]
) -> None:
    """Decode rates go to the row of their batch, times to first token to all rows."""
    for row in rows:
        if what != "decode":
            row.ttft_ms[what] = round(answers[1].ttft_ms, 2)
            continue
        answer = answers[row.batch]
        row.decode_tokens_per_s = round(1000 * row.batch / answer.tpot_ms, 1)
        if results.copy_tb_per_s:
            context = round(answer.prompt_tokens + DECODE.output_tokens / 2)
            limit = limit_tokens_per_s(PRESETS[model], row.batch, context, results.copy_tb_per_s)
            row.limit_tokens_per_s = round(limit, 1)


def _prepare(options: Options) -> None:
    if (options.checkpoint / "config.json").is_file():
        return
    start = time.monotonic()
    try:
        make_checkpoint(
            options.checkpoint,
            PRESETS[options.model],
            seed=0,
            force=False,
            advance=lambda written: None,
        )
    except (CheckpointError, OSError) as error:
        raise BenchmarkError(f"the checkpoint cannot be made: {error}") from error
    print(f"checkpoint: made in {time.monotonic() - start:.1f} s", flush=True)


def _versions() -> dict[str, str]:
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError as error:
            raise BenchmarkError(f"{sys.executable} has no {package}.") from error
    return found
