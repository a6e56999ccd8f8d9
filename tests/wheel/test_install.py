# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The patched wheel, installed by pip in a fresh environment beside stock max-core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from patchset.changes import PatchSet

CACHE = Path.home() / ".cache" / "max-gpt-oss"


@pytest.fixture(scope="module")
def environment(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with stock MAX and then, over it, the patched wheel."""
    folder = tmp_path_factory.mktemp("install")
    venv = folder / "venv"
    run([sys.executable, "-m", "venv", str(venv)], folder)
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python")]
    lock = repository / "requirements.lock"
    run([*install, "--require-hashes", "--requirement", str(lock)], folder)
    build = [sys.executable, str(repository / "scripts" / "build_wheel.py")]
    wheel = run([*build, "--output", "dist", "--cache-dir", str(CACHE)], folder).splitlines()[-1]
    pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-deps", wheel], folder)
    return venv


def run(command: list[str], folder: Path) -> str:
    """Runs a command outside the repository and returns what it prints."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command, cwd=folder, env=variables, text=True, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_pip_check_is_clean(environment: Path) -> None:
    run([str(environment / "bin" / "pip"), "check"], environment)


def test_pip_shows_the_patched_max_beside_stock_max_core(
    environment: Path, repository: Path
) -> None:
    pin = PatchSet.at(repository).pin
    listing = run([str(environment / "bin" / "pip"), "list", "--format=freeze"], environment)
    installed = dict(line.split("==") for line in listing.splitlines())
    assert installed["max"] == pin.wheel_version
    assert installed["max-core"] == pin.max_version
    assert installed["modular"] == pin.max_version


def test_patched_max_satisfies_modular(environment: Path, repository: Path) -> None:
    """pip would leave the patched max in place when asked for the pinned modular."""
    requirement = f"modular=={PatchSet.at(repository).pin.max_version}"
    pip = [str(environment / "bin" / "pip"), "install", "--dry-run", "--no-index", requirement]
    assert "Would install" not in run(pip, environment)


def test_max_says_its_version(environment: Path, repository: Path) -> None:
    said = run([str(environment / "bin" / "max"), "--version"], environment)
    assert PatchSet.at(repository).pin.max_version in said


def test_kernel_packages_are_found_at_run_time(environment: Path) -> None:
    program = (
        "import max.pipelines.architectures.gpt_oss\n"
        "from max.nn import dense_linear, mxfp4_moe\n"
        "print(dense_linear.kernel_package_path())\n"
        "print(mxfp4_moe.kernel_package_path())\n"
    )
    said = run([str(environment / "bin" / "python"), "-c", program], environment)
    found = [Path(line) for line in said.splitlines()]
    assert [path.name for path in found] == ["dense_linear.mojoc", "mxfp4_moe.mojoc"]
    for path in found:
        assert path.is_relative_to(environment.resolve())
        assert path.parent.joinpath("layout.mojoc").is_file()
