# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Finds the compiled kernel packages of this MAX that graphs load as custom extensions."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import NamedTuple

IMPORT_PATH_VARIABLE = "MODULAR_MOJO_MAX_IMPORT_PATH"
"""Environment variable that lists kernel folders and packages, separated by commas."""

MANIFEST = Path(__file__).with_name("kernel_packages.json")
"""Written by the wheel build: the MAX version and the hashes of the packages it ships."""

_REINSTALL = "install the max wheel and max-core of the same version again"


class KernelPackageError(RuntimeError):
    """A kernel package is missing, or is not the one this MAX was built with."""


def find_kernel_package(name: str) -> Path:
    """Returns the path of a compiled kernel package, for ``custom_extensions``.

    Looks in the folders and files of ``MODULAR_MOJO_MAX_IMPORT_PATH`` first, then in the
    ``lib/mojo`` folder of a wheel installation, then in that of a conda environment. Where
    the wheel build left its manifest, the installed MAX and the package found must be the
    ones it describes; in a monorepo build there is no manifest and the package is taken as
    it is.

    Args:
        name: The package's name, such as ``"mxfp4_moe"``.

    Raises:
        KernelPackageError: If the package is missing, stale, or was built for another
            version of MAX.
    """
    file = f"{name}.mojoc"
    manifest = _read_manifest(name)
    if manifest is not None:
        _check_max_version(file, manifest.max_version)
    package = _find_file(file)
    if manifest is not None:
        _check_digest(package, manifest.package_sha256)
    return package


class _Manifest(NamedTuple):
    """What the wheel build says of one package."""

    max_version: str
    package_sha256: str


def _read_manifest(name: str) -> _Manifest | None:
    try:
        text = MANIFEST.read_text()
    except FileNotFoundError:
        return None
    try:
        manifest = json.loads(text)
        digest = manifest["packages"][name]["package_sha256"]
        return _Manifest(str(manifest["max_version"]), str(digest))
    except (ValueError, KeyError, TypeError) as error:
        raise KernelPackageError(
            f"{MANIFEST} does not describe the kernel package {name}; {_REINSTALL}."
        ) from error


def _check_max_version(file: str, expected: str) -> None:
    try:
        installed = importlib.metadata.version("max-core")
    except importlib.metadata.PackageNotFoundError:
        installed = "missing"
    if installed != expected:
        raise KernelPackageError(
            f"{file} was built for MAX {expected} but max-core is {installed}: "
            f"install max-core=={expected}, or a max wheel built for {installed}."
        )


def _check_digest(package: Path, expected: str) -> None:
    if hashlib.sha256(package.read_bytes()).hexdigest() != expected:
        raise KernelPackageError(
            f"{package} is stale: it is not the kernel package this max wheel was built "
            f"with ({MANIFEST}); {_REINSTALL}, or unset {IMPORT_PATH_VARIABLE}."
        )


def _find_file(file: str) -> Path:
    roots = _search_roots()
    for root in roots:
        candidate = root / file if root.is_dir() else root
        if candidate.name == file and candidate.is_file():
            return candidate.resolve()
    searched = ", ".join(map(str, roots))
    raise KernelPackageError(
        f"{file} is missing (looked in {searched}): {_REINSTALL}, or name its folder "
        f"in {IMPORT_PATH_VARIABLE}."
    )


def _search_roots() -> list[Path]:
    """Folders and package files to look in, in order."""
    listed = os.environ.get(IMPORT_PATH_VARIABLE, "").split(",")
    roots = [Path(entry.strip()).absolute() for entry in listed if entry.strip()]
    site_packages = Path(__file__).resolve().parents[2]
    conda_prefix = site_packages.parent.parent.parent
    return [*roots, site_packages / "modular" / "lib" / "mojo", conda_prefix / "lib" / "mojo"]
