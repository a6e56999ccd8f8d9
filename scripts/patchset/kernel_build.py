# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Compiling the kernel packages with the Mojo that belongs to the pinned MAX."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from patchset.changes import PatchSet
from patchset.errors import PatchsetError

PACKAGES = ("dense_linear", "mxfp4_moe")
"""Names of the kernel packages; MAX finds the ops of one through the file ``NAME.mojoc``."""

SOURCES = "max/kernels/src"
"""Where the monorepo, and so the overlay, holds a folder of sources for each package."""


def kernel_sources(patchset: PatchSet, package: str) -> dict[str, bytes]:
    """Returns a package's Mojo sources by their path in the package, sorted.

    Args:
        patchset: The overlay.
        package: The package's name.

    Raises:
        PatchsetError: If the overlay has no such package.
    """
    folder = patchset.overlay / SOURCES / package
    if not (folder / "__init__.mojo").is_file():
        raise PatchsetError(
            f"{folder}/__init__.mojo is missing: there is no kernel package {package}."
        )
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*.mojo"))
    }


def sources_digest(sources: dict[str, bytes]) -> str:
    """Returns one SHA-256, in hex, over the names and contents of the sources."""
    digest = hashlib.sha256()
    for name, content in sorted(sources.items()):
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def compile_kernels(
    package: str, sources: dict[str, bytes], mojo: Path, mojo_version: str
) -> bytes:
    """Compiles a package and returns the content of its ``.mojoc`` file.

    A package records the paths it was compiled from: compiled by its name from the folder
    above, the same sources give the same bytes everywhere.

    Args:
        package: The package's name.
        sources: The Mojo sources by their path in the package.
        mojo: The compiler.
        mojo_version: The version it has to be.

    Raises:
        PatchsetError: If the compiler is missing, of another version, or rejects the sources.
    """
    _check_compiler(mojo, mojo_version)
    with tempfile.TemporaryDirectory(prefix="kernels-") as name:
        folder = Path(name)
        for path, content in sources.items():
            (folder / package / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / package / path).write_bytes(content)
        output = folder / f"{package}.mojoc"
        result = _run(mojo, ["precompile", package, "-o", output.name], folder)
        if result.returncode != 0 or not output.is_file():
            raise PatchsetError(f"{SOURCES}/{package} does not compile:\n{result.stderr.strip()}")
        return output.read_bytes()


def find_mojo(python: Path) -> Path:
    """Returns the Mojo compiler of the environment that ``python`` belongs to.

    Raises:
        PatchsetError: If that environment has none.
    """
    mojo = shutil.which("mojo", path=str(python.parent))
    if mojo is None:
        raise PatchsetError(f"{python.parent} has no mojo: run scripts/setup.sh first.")
    return Path(mojo)


def _check_compiler(mojo: Path, expected: str) -> None:
    words = _run(mojo, ["--version"], Path.cwd()).stdout.split()
    if words[:2] != ["Mojo", expected]:
        raise PatchsetError(
            f"{mojo} is '{' '.join(words)}', and the lock asks for Mojo {expected}."
        )


def _run(mojo: Path, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the compiler without the variables that change what it imports."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODULAR_", "MOJO_"))
    }
    return subprocess.run(
        [str(mojo), *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
