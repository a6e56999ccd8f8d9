# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Upstream's own ``max`` wheel, by the hashes that the lock file accepts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from patchset.errors import PatchsetError
from patchset.pin import LOCK_FILE, locked_hashes, read_pin

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "max-gpt-oss"
"""Where upstream's wheels are kept."""

PLATFORM = "manylinux_2_34_x86_64"
"""The platform tag of upstream's wheels for Linux x86-64."""


def base_wheel_name(max_version: str, python_version: str) -> str:
    """Returns the file name of upstream's wheel for CPython ``python_version``, as ``3.12``."""
    tag = f"cp{python_version.replace('.', '')}"
    return f"max-{max_version}-{tag}-{tag}-{PLATFORM}.whl"


def check_base_wheel(root: Path, wheel: Path, python_version: str) -> None:
    """Makes sure that ``wheel`` is upstream's for this pin and CPython.

    Raises:
        PatchsetError: If it is missing, has another name, or the lock does not hold its hash.
    """
    name = base_wheel_name(read_pin(root).max_version, python_version)
    if not wheel.is_file():
        raise PatchsetError(f"{wheel} is missing.")
    if wheel.name != name:
        raise PatchsetError(f"{wheel} is not upstream's wheel {name}.")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() not in locked_hashes(root, "max"):
        raise PatchsetError(f"{wheel} has a hash that {LOCK_FILE} does not list.")


def fetch_base_wheel(root: Path, cache: Path, python_version: str) -> Path:
    """Returns upstream's wheel from ``cache``, downloaded there with pip where it is not yet.

    Raises:
        PatchsetError: If pip cannot download it.
    """
    pin = read_pin(root)
    wheel = cache / base_wheel_name(pin.max_version, python_version)
    if not wheel.exists():
        cache.mkdir(parents=True, exist_ok=True)
        _download(root, pin.max_version, python_version, cache)
    check_base_wheel(root, wheel, python_version)
    return wheel


def _download(root: Path, max_version: str, python_version: str, folder: Path) -> None:
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in sorted(locked_hashes(root, "max")))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(f"max=={max_version} {hashes}\n")
        requirements.flush()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
        command += ["--implementation=cp", f"--python-version={python_version}"]
        command += [f"--abi=cp{python_version.replace('.', '')}", f"--platform={PLATFORM}"]
        command += [f"--dest={folder}", f"--requirement={requirements.name}"]
        result = subprocess.run(command, text=True, capture_output=True, check=False)
    if result.returncode != 0:
        reason = result.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise PatchsetError(
            f"pip cannot download max {max_version} for CPython {python_version} "
            f"({reason[0]}): give the wheel with --base-wheel."
        )
