# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Validates the patch set on a checkout, real or assembled from upstream's wheel."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from patchset import application, validation
from patchset.assembled import assemble_checkout
from patchset.base_wheel import CACHE, check_base_wheel, fetch_base_wheel
from patchset.changes import PatchSet
from patchset.checkout import Checkout
from patchset.environment import make_environment
from patchset.errors import PatchsetError
from patchset.kernel_build import find_mojo
from patchset.scratch_git import git
from patchset.wheel_build import build_wheel, build_wheel_from_checkout

ROOT = Path(__file__).resolve().parents[1]
PYTHON_VERSION = f"3.{sys.version_info.minor}"


def main(
    checkout: Annotated[
        Path | None,
        typer.Argument(help="Root of a checkout, which stays as it is; else one is assembled."),
    ] = None,
    base_wheel: Annotated[
        Path | None, typer.Option(help="Upstream's max wheel, instead of downloading it.")
    ] = None,
) -> None:
    """Check that the patches apply, and that what they make imports, compiles and ships."""
    try:
        if base_wheel is None:
            base_wheel = fetch_base_wheel(ROOT, CACHE, PYTHON_VERSION)
        else:
            check_base_wheel(ROOT, base_wheel, PYTHON_VERSION)
        with tempfile.TemporaryDirectory(prefix="validate-") as folder:
            for checked in _validate(checkout, base_wheel, Path(folder)):
                typer.echo(f"checked: {checked}")
    except PatchsetError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


def _validate(source: Path | None, base_wheel: Path, folder: Path) -> Iterator[str]:
    patchset = PatchSet.at(ROOT)
    checkout = _copy(source, base_wheel, patchset.pin.max_version, folder / "modular")
    validation.check_patches_alone(patchset, checkout.committed)
    yield "every patch applies alone, without fuzz"
    tried = len(validation.check_unshipped(patchset, checkout.committed))
    unshipped = len(patchset.unshipped_patches())
    yield f"{tried} of {unshipped} patches of sources that no wheel ships apply; others lack those"
    validation.check_preimages(patchset, checkout.committed)
    yield "patches and replaced files were made from upstream's own"
    changes = validation.python_changes(patchset, checkout)
    application.apply(patchset, checkout, check=False)
    yield "all of it applies in order, without fuzz"

    mojo = find_mojo(Path(sys.executable))
    wheel = build_wheel_from_checkout(
        patchset, checkout, base_wheel, PYTHON_VERSION, mojo, folder / "from-checkout"
    )
    yield "the kernel packages compile from the checkout, and a wheel is built of it"
    python = make_environment(folder / "environment", wheel)
    validation.check_imports([validation.module_name(change.path) for change in changes], python)
    yield f"{len(changes)} Python modules that are new or changed import"
    validation.check_types(patchset, changes, python)
    yield "they type-check"
    folders = validation.check_tests(patchset, checkout.root, python)
    yield f"the tests in {folders} folders of the checkout pass with that wheel"
    direct = build_wheel(patchset, base_wheel, PYTHON_VERSION, mojo, folder / "direct")
    validation.check_same_wheel(direct, wheel)
    yield "the wheel equals the one that scripts/build_wheel.py builds"
    programs = validation.check_programs(patchset, checkout.root, mojo)
    yield f"{', '.join(programs)} compile for {validation.TARGET}"


def _copy(source: Path | None, base_wheel: Path, max_version: str, folder: Path) -> Checkout:
    """A checkout of our own, of the current commit of ``source`` where that is given."""
    if source is None:
        assemble_checkout(folder, base_wheel, max_version)
    else:
        given = Checkout(source)
        given.check_version(max_version)
        git(folder.parent, ["clone", "--quiet", "--shared", str(given.root), str(folder)])
    return Checkout(folder)


if __name__ == "__main__":
    typer.run(main)
