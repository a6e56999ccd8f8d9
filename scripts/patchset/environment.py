# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A Python environment like the present one, with another ``max`` wheel in it."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from patchset.errors import PatchsetError


def make_environment(folder: Path, wheel: Path) -> Path:
    """Makes an environment of links to this one's packages, but for ``max``.

    Nothing is downloaded and little copied, so it takes moments. It is of use as long as this
    environment stays as it is.

    Args:
        folder: Where to make it.
        wheel: The ``max`` wheel that it gets.

    Returns:
        Its Python.

    Raises:
        PatchsetError: If the wheel cannot be installed.
    """
    venv.create(folder, symlinks=True)
    here = Path(sysconfig.get_path("purelib"))
    there = folder / here.relative_to(Path(sysconfig.get_path("data")))
    replaced = {
        Path(str(file.locate())) for file in importlib.metadata.distribution("max").files or ()
    }
    # Other distributions have files in some of these folders too.
    folders = {file.relative_to(here).parts[0] for file in replaced if file.is_relative_to(here)}
    for entry in here.iterdir():
        files = entry.rglob("*") if entry.name in folders else [entry]
        for file in files:
            if entry.name in folders and (file.is_dir() or file in replaced):
                continue
            link = there / file.relative_to(here)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    python = folder / "bin" / "python"
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--quiet", "--offline", "--no-deps"]
    result = subprocess.run(
        [*command, "--python", str(python), str(wheel)],
        text=True,
        capture_output=True,
        check=False,
    )
    if result.returncode != 0:
        raise PatchsetError(f"{wheel.name} cannot be installed: {result.stderr.strip()}")
    return python
