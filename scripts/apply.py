# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Applies the patch set to a Modular checkout of the pinned version, or takes it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchset import application
from patchset.application import Outcome
from patchset.changes import PatchSet
from patchset.checkout import Checkout
from patchset.errors import PatchsetError

ROOT = Path(__file__).resolve().parents[1]


def main(
    checkout: Annotated[Path, typer.Argument(help="Root of a checkout of the Modular monorepo.")],
    check: Annotated[
        bool, typer.Option("--check", help="Say whether it would work; change nothing.")
    ] = False,
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Take the patch set off the checkout again.")
    ] = False,
) -> None:
    """Apply overlay and patches to CHECKOUT, all or nothing."""
    try:
        patchset = PatchSet.at(ROOT)
        act = application.reverse if reverse else application.apply
        outcome = act(patchset, Checkout(checkout), check)
    except PatchsetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(_report(outcome, check, reverse, checkout, patchset.pin.max_version))


def _report(outcome: Outcome, check: bool, reverse: bool, checkout: Path, version: str) -> str:
    if outcome is Outcome.NOTHING_TO_DO:
        return f"{'not applied to' if reverse else 'already applied to'} {checkout}: nothing to do"
    if check:
        return f"the patch set {'comes off' if reverse else 'applies to'} {checkout}"
    if reverse:
        return f"took the patch set for MAX {version} off {checkout}"
    return f"applied the patch set for MAX {version} to {checkout}"


if __name__ == "__main__":
    typer.run(main)
