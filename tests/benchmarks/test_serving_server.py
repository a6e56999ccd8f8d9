# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Starting, waiting for and stopping a server, which is a small one here."""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

import fake_server
import pytest

from moe_layer.errors import BenchmarkError
from serving.memory import manager_variables
from serving.server import serve, serve_command, startup_phases

FAKE = [sys.executable, fake_server.__file__]
PHASES = {"spawn": 15.7, "driver": 0.8, "compile": 1.2, "init": 2.1, "other": 3.4, "warmup": 0.4}


def test_is_ready_and_gone(tmp_path: Path) -> None:
    with serve(FAKE, {}, tmp_path / "log", 60) as server:
        url = f"http://127.0.0.1:{server.port}/health"
        with urllib.request.urlopen(url) as response:
            assert response.status == 200
        assert server.phases_s == PHASES
        assert server.ready_s > 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url)


def test_children_go_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f'sleep 600 & echo $! > {pid}; exec "$@"'
    with serve(["sh", "-c", script, "sh", *FAKE], {}, tmp_path / "log", 60):
        child = int(pid.read_text())
        os.kill(child, 0)
    # What is left of it is a zombie at most.
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or ") Z " in status.read_text()


def test_says_why_it_does_not_start(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo no such checkpoint; exit 3"]
    with (
        pytest.raises(BenchmarkError, match=r"exited with 3:\nno such checkpoint"),
        serve(command, {}, tmp_path / "log", 60),
    ):
        pass


def test_does_not_wait_for_ever(tmp_path: Path) -> None:
    with (
        pytest.raises(BenchmarkError, match="is not ready in time"),
        serve(["sh", "-c", "exec sleep 600"], {}, tmp_path / "log", 0.2),
    ):
        pass


def test_a_log_without_phases() -> None:
    assert startup_phases("Server ready") == {}


@pytest.mark.parametrize("device_graphs", [True, False])
def test_the_command(device_graphs: bool) -> None:
    command = serve_command(Path("/model"), device_graphs, 64, 131072, 0.99, Path("/mefs"))
    assert command[1:3] == ["-m", "max._entrypoints.pipelines"]
    assert ("--no-device-graph-capture" in command) is not device_graphs
    assert command[command.index("--precompiled-mefs") + 1] == "/mefs"
    assert command[command.index("--device-memory-utilization") + 1] == "0.99"


def test_the_environment(tmp_path: Path) -> None:
    variables = manager_variables(79.6)
    # It never gets ready: it says what it was given and is gone.
    command = ["sh", "-c", "echo $MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE"]
    with (
        pytest.raises(BenchmarkError, match=f"\n{int(0.9 * 79.6 * (1 << 30))}$"),
        serve(command, variables, tmp_path / "log", 60),
    ):
        pass
    assert manager_variables(None) == {}
