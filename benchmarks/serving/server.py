# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Starts ``max serve``, waits until it is ready, and stops it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from moe_layer.errors import BenchmarkError
from serving.processes import MAX, environment

STOP_SECONDS = 60
GROUP_SECONDS = 10
_STARTUP = re.compile(r"Model worker startup total: \S+ — (.*)")
# But not the part of a phase that stands in brackets.
_PHASE = re.compile(r"(?<![\[\w])(\w+): ([\d.]+)s")


class Server:
    """A running server.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        ready_s: Seconds from its start until it was ready.
        phases_s: What MAX's log says of these seconds in its model worker: ``spawn`` (Python's
            imports), ``driver``, ``compile``, ``init``, ``other`` and ``warmup``.
    """

    def __init__(self, port: int, ready_s: float, phases_s: dict[str, float]) -> None:
        self.port = port
        self.ready_s = ready_s
        self.phases_s = phases_s


@contextmanager
def serve(
    command: Sequence[str], variables: Mapping[str, str], log: Path, timeout: float
) -> Iterator[Server]:
    """Run a server until the end of the context, when all of its processes are gone.

    Args:
        command: The server's; ``--port`` is added.
        variables: What its environment has beside this process's.
        log: File for what it prints.
        timeout: Seconds until it has to be ready.

    Raises:
        BenchmarkError: If it exits or is not ready in time, with the last that it said.
    """
    port = _free_port()
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), **variables},
            start_new_session=True,
        )
    try:
        _wait_until_ready(process, port, log, start + timeout)
        ready_s = time.monotonic() - start
        yield Server(port, ready_s, startup_phases(log.read_text(errors="replace")))
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        _kill_group(process)


def serve_command(
    checkpoint: Path,
    device_graphs: bool,
    batch: int,
    max_length: int,
    utilization: float | None,
    precompiled_mefs: Path | None,
) -> list[str]:
    """The command that serves a checkpoint.

    Prompts are not cached, since some of the client's begin with the same tokens.
    """
    command = [*MAX, "serve", "--model-path", str(checkpoint), "--no-enable-prefix-caching"]
    command += ["--max-batch-size", str(batch), "--max-length", str(max_length)]
    command += ["--device-graph-capture" if device_graphs else "--no-device-graph-capture"]
    if utilization is not None:
        command += ["--device-memory-utilization", str(utilization)]
    if precompiled_mefs:
        command += ["--precompiled-mefs", str(precompiled_mefs)]
    return command


def startup_phases(log: str) -> dict[str, float]:
    """Seconds by phase, as the model worker logs them; empty where it does not."""
    found = _STARTUP.search(log)
    return {name: float(value) for name, value in _PHASE.findall(found[1])} if found else {}


def _wait_until_ready(
    process: subprocess.Popen[bytes], port: int, log: Path, deadline: float
) -> None:
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    why = "is not ready in time"
    if process.returncode is not None:
        why = f"exited with {process.returncode}"
    said = log.read_text(errors="replace").strip()[-2000:]
    raise BenchmarkError(f"the server {why}:\n{said}")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the server's processes, and wait until they hold no memory."""
    deadline = time.monotonic() + GROUP_SECONDS
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
