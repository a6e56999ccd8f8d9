# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Builds the patched max wheel from upstream's wheel of the pinned version."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from patchset.base_wheel import CACHE, fetch_base_wheel
from patchset.changes import PatchSet
from patchset.errors import PatchsetError
from patchset.kernel_build import find_mojo
from patchset.wheel_build import build_wheel

ROOT = Path(__file__).resolve().parents[1]
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def main(
    output: Annotated[
        Path, typer.Option("--output", help="Folder that the wheel is written to.")
    ] = ROOT / "dist",
    python_version: Annotated[
        str, typer.Option("--python-version", help="CPython that the wheel is for.")
    ] = THIS_PYTHON,
    base_wheel: Annotated[
        Path | None, typer.Option("--base-wheel", help="Upstream's wheel, instead of a download.")
    ] = None,
    cache: Annotated[
        Path, typer.Option("--cache-dir", help="Folder that keeps upstream's wheels.")
    ] = CACHE,
) -> None:
    """Build the patched max wheel; its path is the last line printed."""
    if not re.fullmatch(r"3\.\d+", python_version):
        raise typer.BadParameter(f"{python_version} is not a version as 3.12.")
    try:
        patchset = PatchSet.at(ROOT)
        base = base_wheel or fetch_base_wheel(ROOT, cache, python_version)
        mojo = find_mojo(Path(sys.executable))
        wheel = build_wheel(patchset, base, python_version, mojo, output)
    except PatchsetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(wheel)


if __name__ == "__main__":
    typer.run(main)
