# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The part that runs on a GPU host, with programs and an nvidia-smi made up for the test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from measure import main
from moe_layer.bundle import BENCHMARKS, pack
from moe_layer.results import read_results
from moe_layer.run import Program, run_program
from moe_layer.shapes import TOKENS

FAKE_OURS = """#!/bin/sh
[ "$1 $2" = "32 matmul" ] && { echo "no memory" >&2; exit 3; }
for power in 0 1 2 3 4 5 6 7 8 9 10 11 12 13; do
    echo "{\\"experts\\": $1, \\"tokens\\": $((1 << power)), \\"active_experts\\": 4, \\"us\\": 9}"
done
"""


def script(path: Path, text: str) -> Path:
    """Writes an executable."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def fake_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nvidia-smi that names an H200."""
    script(tmp_path / "bin" / "nvidia-smi", "#!/bin/sh\necho NVIDIA H200, 580.1\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")


@pytest.mark.usefixtures("fake_gpu")
def test_what_fails_is_named_and_the_rest_is_kept(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "ours", tmp_path / "ours.json"
    versions = {"max": "26.7.0", "mojo": "1.2.0"}
    pack(folder, "ours", {"moe_layer": script(tmp_path / "program", FAKE_OURS)}, versions)
    assert main(["run", "--ours", str(folder), "--output", str(output)]) == 1
    results = read_results(output)
    assert results.versions == {**versions, "driver": "580.1"}
    assert len(results.layer.us["ours"]) == 2 * len(TOKENS)
    assert len(results.matmul.us["ours"]) == len(TOKENS)
    # There is no GPU for the rates, or no torch.
    rates, matmul = results.failures
    assert rates.startswith("rates exited with 1: ")
    assert matmul == "ours, matmul, 32 experts exited with 3: no memory"
    assert f"error: {matmul}" in capfd.readouterr().err


def test_a_timeout_is_named_and_whole_lines_are_kept() -> None:
    program = Program("marlin", ("sh", "-c", "echo whole; printf half; exec sleep 60"))
    assert run_program(program, 0.5) == ("whole", "marlin took more than 0 s")


def test_a_program_that_does_not_start_is_named() -> None:
    printed, failure = run_program(Program("ours", ("/nowhere/moe_layer",)), 5)
    assert not printed
    assert failure is not None
    assert failure.startswith("ours did not start: ")


@pytest.mark.parametrize("kind", ["ours", "peers"])
def test_a_missing_folder_is_named(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nowhere"
    assert main(["run", f"--{kind}", str(folder), "--output", str(tmp_path / "out.json")]) == 1
    assert f"error: {folder}/{kind}.tar.xz is missing" in capsys.readouterr().err


def test_neither_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--output", str(tmp_path / "out.json")])
    assert "give --ours, --peers or both" in capsys.readouterr().err


def test_running_needs_the_standard_library_alone() -> None:
    code = "import sys, measure, moe_layer.run; print([m for m in sys.modules if m in {names}])"
    names = {"matplotlib", "numpy", "rich", "torch", "typer"}
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})"]
    command[-1] += "\n" + code.format(names=names)
    assert subprocess.check_output(command, text=True).strip() == "[]"
