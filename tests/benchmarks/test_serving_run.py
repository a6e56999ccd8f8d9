# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The order of a run, with a MAX and an nvidia-smi made up for the test."""

from __future__ import annotations

import sys
from pathlib import Path

import fake_server
import pytest

from checkpoint import PRESETS, make_checkpoint
from serve import main
from serving.copies import copy_seconds, device_copy_rate
from serving.results import BATCHES, read_results

FAKE_NVIDIA_SMI = """#!/bin/sh
case "$1" in
    *name*) echo NVIDIA H200, 580.1 ;;
    *reserved*) echo 600 ;;
    *) echo 1024; [ -n "$4" ] && { echo 9216; echo 5120; exec sleep 60; } ;;
esac
exit 0
"""

# Takes what `max serve` and `max benchmark` are called with; prompts of 8k are too long for it.
FAKE_MAX = f"""
import json, runpy, sys
from pathlib import Path

options = dict(zip(sys.argv[2:], sys.argv[3:]))
if sys.argv[1] == "serve":
    if "--no-device-graph-capture" in sys.argv:
        sys.exit("no memory")
    runpy.run_path({fake_server.__file__!r}, run_name="__main__")
if int(options["--random-input-len"]) > 1000:
    sys.exit("too long")
for level in options["--max-concurrency"].split(","):
    requests = int(level) * int(options["--num-prompts-multiplier"])
    result = {{
        "completed": requests,
        "failures": 0,
        "input_lens": [112] * requests,
        "median_ttft_ms": 30,
        "mean_ttft_ms": 40.0,
        "mean_latency_ms": 40.0 + 1023 * 2.5,
    }}
    Path(options["--log-dir"], f"results-{{level}}-median.json").write_text(json.dumps(result))
"""

FAKE_COPIES = 'print(\'{"copy_tb_per_s": 4.25, "copy_s": 3, "checkpoint_bytes": 13800000000}\')'


@pytest.fixture
def fake_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that names an H200, and a MAX of two commands."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(FAKE_NVIDIA_SMI)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    package = tmp_path / "fake"
    for name, text in (("max_command", FAKE_MAX), ("copies", FAKE_COPIES)):
        package.mkdir(exist_ok=True)
        (package / f"{name}.py").write_text(text)
    command = (sys.executable, str(package / "max_command.py"))
    monkeypatch.setattr("serving.server.MAX", command)
    monkeypatch.setattr("serving.client.MAX", command)
    monkeypatch.setattr("serving.run.COPIES", (sys.executable, str(package / "copies.py")))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint that is there already."""
    folder = tmp_path / "checkpoint"
    make_checkpoint(folder, PRESETS["toy"], seed=0, force=False, advance=lambda written: None)
    return folder


@pytest.mark.usefixtures("fake_host")
def test_what_fails_is_named_and_the_rest_is_kept(tmp_path: Path, checkpoint: Path) -> None:
    output = tmp_path / "20b.json"
    options = ["--model", "20b", "--checkpoint", str(checkpoint), "--output", str(output)]
    assert main(["run", *options]) == 1
    results = read_results(output)
    assert results.device == "NVIDIA H200"
    assert results.versions.keys() == {"max", "mojo", "driver"}
    captured, uncaptured = results.rows[: len(BATCHES)], results.rows[len(BATCHES) :]
    assert [row.batch for row in captured] == list(BATCHES)
    for row in captured:
        assert row.device_graphs
        assert row.decode_tokens_per_s == 400 * row.batch
        assert row.limit_tokens_per_s is not None
        assert (row.copy_s, row.compile_s, row.peak_device_gib) == (3, 1.2, 8)
        assert row.new_tokens == 1024
        assert row.load_s is not None
        assert row.ttft_ms == {"1k": 30}
    (run,) = results.runs
    assert run.device_graphs
    assert run.checkpoint_gb == 13.8
    for row in uncaptured:
        assert row.decode_tokens_per_s is None
        assert row.load_s is None
    first, second, third = results.failures
    assert "with device graphs, 8k: max benchmark failed:\ntoo long" in first
    assert "with device graphs, 32k: max benchmark failed:\ntoo long" in second
    assert "without device graphs: the server exited with 1:\nno memory" in third


@pytest.mark.usefixtures("fake_host")
def test_a_limit_that_cannot_be_kept_is_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    output = tmp_path / "20b.json"
    options = ["--model", "20b", "--checkpoint", str(checkpoint), "--output", str(output)]
    assert main(["run", *options, "--device-graphs", "on", "--device-gib", "79.6"]) == 1
    (failure,) = read_results(output).failures
    assert "device memory cannot be limited to 79.6 GiB" in failure


def test_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["run", "--model", "20b", "--output", str(tmp_path / "20b.json")]) == 1
    assert "error: nvidia-smi does not tell the GPU" in capsys.readouterr().err


def test_copies_run_on_any_device(checkpoint: Path) -> None:
    from max.driver import CPU

    files = sorted(checkpoint.glob("*.safetensors"))
    assert copy_seconds(files, CPU()) > 0
    assert device_copy_rate(CPU(), 1 << 16) > 0
