# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Runs the ``max`` command, or a script of these tests, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
MAX = [sys.executable, "-m", "max._entrypoints.pipelines"]
START_SECONDS = 900
STOP_SECONDS = 60
GROUP_SECONDS = 10


def run(command: Sequence[str]) -> str:
    """Run a command and return its standard output; raises when it fails, with what it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
    if done.returncode:
        raise RuntimeError(f"{command} exited with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Server:
    """A running ``max serve``, its process and its address."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def wait_until_ready(self, log: Path) -> None:
        """Wait for the health endpoint; raises with the log when the server gives up."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:
                    if response.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(1)
        raise RuntimeError(
            f"max serve is not ready (exit code {self._process.poll()}):\n{log.read_text()}"
        )

    def stop(self, signal: int) -> int:
        """Send a signal to the server alone and return its exit code."""
        self._process.send_signal(signal)
        return self._process.wait(STOP_SECONDS)

    def group_is_gone(self) -> bool:
        """Whether no process of the server's group is left, after a moment for the last to go."""
        deadline = time.monotonic() + GROUP_SECONDS
        while time.monotonic() < deadline:
            try:
                os.killpg(self._process.pid, 0)
            except ProcessLookupError:
                return True
            time.sleep(0.2)
        return False


@contextmanager
def serve(checkpoint: Path, options: Sequence[str], log: Path) -> Iterator[Server]:
    """Start ``max serve`` and wait until it is ready; what is left of it is killed at the end."""
    port = _free_port()
    arguments = ["--model-path", str(checkpoint), "--port", str(port), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*MAX, "serve", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )
    server = Server(process, port)
    try:
        server.wait_until_ready(log)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment() -> dict[str, str]:
    inherited = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(TESTS), *([inherited] if inherited else [])])
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        # A GPU host may have no network, and a test has nothing to report.
        "MAX_SERVE_DISABLE_TELEMETRY": "1",
    }
