# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Writes the patch set as a series of commits for upstream, to be applied with ``git am``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from patchset.base_wheel import CACHE, check_base_wheel, fetch_base_wheel
from patchset.changes import PatchSet
from patchset.checkout import PYTHON_FOLDER
from patchset.errors import PatchsetError
from patchset.export import COVER_FILE, export_series
from patchset.wheel_file import read_wheel

ROOT = Path(__file__).resolve().parents[1]


def main(
    out: Annotated[Path, typer.Argument(help="Folder to write to, new or empty.")],
    base_wheel: Annotated[
        Path | None, typer.Option(help="Upstream's max wheel, instead of downloading it.")
    ] = None,
) -> None:
    """Write one mail for each commit, and a cover letter, to OUT."""
    python_version = f"3.{sys.version_info.minor}"
    try:
        if base_wheel is None:
            base_wheel = fetch_base_wheel(ROOT, CACHE, python_version)
        else:
            check_base_wheel(ROOT, base_wheel, python_version)
        upstream = read_wheel(base_wheel)

        def read_upstream(path: str) -> bytes | None:
            if not path.startswith(f"{PYTHON_FOLDER}/"):
                return None
            return upstream.get(path.removeprefix(PYTHON_FOLDER.removesuffix("max")))

        mails = export_series(PatchSet.at(ROOT), read_upstream, out)
    except PatchsetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for mail in mails:
        typer.echo(mail.name)
    typer.echo(
        f"{len(mails)} commits in {out}, and {COVER_FILE}, which tells about them; apply with"
    )
    typer.echo(f"git am --keep-non-patch {out.resolve()}/*.patch")


if __name__ == "__main__":
    typer.run(main)
