# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Finds the compiled ``mxfp4_moe`` kernel package that belongs to this MAX."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path

PACKAGE_FILE = "mxfp4_moe.mojoc"
"""File name of the compiled kernel package."""

IMPORT_PATH_VARIABLE = "MODULAR_MOJO_MAX_IMPORT_PATH"
"""Environment variable that lists kernel folders and packages, separated by commas."""

MANIFEST = Path(__file__).with_name("kernel_package.json")
"""Written by the wheel build: the MAX version and the hash of the package it ships."""

_REINSTALL = "install the max wheel and max-core of the same version again"


class KernelPackageError(RuntimeError):
    """The kernel package is missing, or is not the one this MAX was built with."""


def kernel_package_path() -> Path:
    """Returns the path of the ``mxfp4_moe`` kernel package, for ``custom_extensions``.

    Looks in the folders and files of ``MODULAR_MOJO_MAX_IMPORT_PATH`` first, then in the
    ``lib/mojo`` folder of a wheel installation, then in that of a conda environment. Where
    the wheel build left its manifest, the installed MAX and the package found must be the
    ones it describes; in a monorepo build there is no manifest and the package is taken as
    it is.

    Raises:
        KernelPackageError: If the package is missing, stale, or was built for another
            version of MAX.
    """
    manifest = _read_manifest()
    if manifest is not None:
        _check_max_version(manifest["max_version"])
    package = _find_package()
    if manifest is not None:
        _check_digest(package, manifest["package_sha256"])
    return package


def _read_manifest() -> dict[str, str] | None:
    try:
        text = MANIFEST.read_text()
    except FileNotFoundError:
        return None
    try:
        manifest = json.loads(text)
        return {key: str(manifest[key]) for key in ("max_version", "package_sha256")}
    except (ValueError, KeyError, TypeError) as error:
        raise KernelPackageError(
            f"{MANIFEST} does not describe a kernel package; {_REINSTALL}."
        ) from error


def _check_max_version(expected: str) -> None:
    try:
        installed = importlib.metadata.version("max-core")
    except importlib.metadata.PackageNotFoundError:
        installed = "missing"
    if installed != expected:
        raise KernelPackageError(
            f"{PACKAGE_FILE} was built for MAX {expected} but max-core is {installed}: "
            f"install max-core=={expected}, or a max wheel built for {installed}."
        )


def _check_digest(package: Path, expected: str) -> None:
    if hashlib.sha256(package.read_bytes()).hexdigest() != expected:
        raise KernelPackageError(
            f"{package} is stale: it is not the kernel package this max wheel was built "
            f"with ({MANIFEST}); {_REINSTALL}, or unset {IMPORT_PATH_VARIABLE}."
        )


def _find_package() -> Path:
    roots = _search_roots()
    for root in roots:
        candidate = root / PACKAGE_FILE if root.is_dir() else root
        if candidate.name == PACKAGE_FILE and candidate.is_file():
            return candidate.resolve()
    searched = ", ".join(map(str, roots))
    raise KernelPackageError(
        f"{PACKAGE_FILE} is missing (looked in {searched}): {_REINSTALL}, or name its folder "
        f"in {IMPORT_PATH_VARIABLE}."
    )


def _search_roots() -> list[Path]:
    """Folders and package files to look in, in order."""
    listed = os.environ.get(IMPORT_PATH_VARIABLE, "").split(",")
    roots = [Path(entry.strip()).absolute() for entry in listed if entry.strip()]
    site_packages = Path(__file__).resolve().parents[3]
    conda_prefix = site_packages.parent.parent.parent
    return [*roots, site_packages / "modular" / "lib" / "mojo", conda_prefix / "lib" / "mojo"]
