# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Says which patches and overlay files fit another release of MAX, and what does not."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from patchset.base_wheel import PLATFORM
from patchset.changes import PatchSet, ReadFile
from patchset.checkout import PYTHON_FOLDER, Checkout
from patchset.errors import PatchsetError
from patchset.trial import try_patchset
from patchset.wheel_file import read_wheel

ROOT = Path(__file__).resolve().parents[1]


def main(
    release: Annotated[
        str, typer.Argument(help="A version of MAX on PyPI, as 26.6.0, or a checkout's folder.")
    ],
) -> None:
    """Try overlay and patches on RELEASE and print a table; exit with 1 where something is off."""
    try:
        patchset = PatchSet.at(ROOT)
        folder = Path(release)
        upstream = Checkout(folder).committed if folder.is_dir() else _published(release)
        trials = try_patchset(patchset, upstream)
    except PatchsetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    table = Table("patch or overlay file", "fits", "what does not", title=f"MAX {release}")
    for trial in trials:
        table.add_row(trial.name, "no" if trial.problem else "yes", trial.problem or "")
    console = Console()
    # A pipe gets whole lines.
    console.width = max(console.width, 160) if not console.is_terminal else console.width
    console.print(table)
    raise typer.Exit(int(any(trial.problem for trial in trials)))


def _published(version: str) -> ReadFile:
    """Reads files of a release's wheel, which holds ``max/python/max`` of the monorepo."""
    with tempfile.TemporaryDirectory(prefix="try-upstream-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary=:all:"]
        command += [f"--platform={PLATFORM}", f"--dest={folder}", f"max=={version}"]
        result = subprocess.run(command, text=True, capture_output=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode != 0 or len(wheels) != 1:
            reason = (result.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise PatchsetError(f"pip cannot download max {version} ({reason}).")
        members = read_wheel(wheels[0])

    def read(path: str) -> bytes | None:
        if not path.startswith(f"{PYTHON_FOLDER}/"):
            return None
        return members.get(path.removeprefix(PYTHON_FOLDER.removesuffix("max")))

    return read


if __name__ == "__main__":
    typer.run(main)
