# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Compiling the kernel packages with the Mojo that belongs to the pinned MAX."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from patchset.errors import PatchsetError

PACKAGES = ("dense_linear", "mxfp4_moe")
"""Names of the kernel packages; MAX finds the ops of one through the file ``NAME.mojoc``."""

SOURCES = "max/kernels/src"
"""Where the monorepo, and so the overlay, holds a folder of sources for each package."""


def kernel_folder(tree: Path, package: str) -> Path:
    """Returns the folder of a package's sources.

    Args:
        tree: The overlay, or a checkout that the patch set was applied to.
        package: The package's name.

    Raises:
        PatchsetError: If the tree has no such package.
    """
    folder = tree / SOURCES / package
    if not (folder / "__init__.mojo").is_file():
        raise PatchsetError(
            f"{folder}/__init__.mojo is missing: there is no kernel package {package}."
        )
    return folder


def sources_digest(folder: Path) -> str:
    """Returns one SHA-256, in hex, over the names and contents of a package's sources."""
    digest = hashlib.sha256()
    sources = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.mojo")}
    for name, file in sorted(sources.items()):
        content = file.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def compile_kernels(folder: Path, mojo: Path, mojo_version: str) -> bytes:
    """Compiles a package and returns the content of its ``.mojoc`` file.

    A package records the paths it was compiled from: compiled by its name from a folder that
    has nothing else, the same sources give the same bytes everywhere.

    Args:
        folder: The package's sources; the folder has the package's name.
        mojo: The compiler.
        mojo_version: The version it has to be.

    Raises:
        PatchsetError: If the compiler is missing, of another version, or rejects the sources.
    """
    _check_compiler(mojo, mojo_version)
    with tempfile.TemporaryDirectory(prefix="kernels-") as name:
        package, output = Path(name) / folder.name, Path(name) / f"{folder.name}.mojoc"
        package.symlink_to(folder.resolve())
        result = _run(mojo, ["precompile", package.name, "-o", output.name], Path(name))
        if result.returncode != 0 or not output.is_file():
            raise PatchsetError(
                f"{SOURCES}/{folder.name} does not compile:\n{result.stderr.strip()}"
            )
        return output.read_bytes()


def compile_program(program: Path, tree: Path, mojo: Path, target: str) -> None:
    """Compiles a Mojo program that imports the kernel packages, and throws the result away.

    It finds upstream's packages as they are installed and ours as sources, since an installed
    one of ours may be of another state of the tree.

    Args:
        program: The file.
        tree: The overlay, or a checkout that the patch set was applied to.
        mojo: The compiler, of an environment that has MAX.
        target: The GPU, as ``sm_90a``.

    Raises:
        PatchsetError: If it does not compile.
    """
    with tempfile.TemporaryDirectory(prefix="program-") as name:
        sources, upstream = Path(name) / "sources", Path(name) / "upstream"
        sources.mkdir()
        upstream.mkdir()
        for package in PACKAGES:
            (sources / package).symlink_to(kernel_folder(tree, package).resolve())
        for file in _installed_packages(mojo):
            if file.stem not in PACKAGES:
                (upstream / file.name).symlink_to(file)
        command = ["build", "-I", str(sources), f"--target-accelerator={target}"]
        command += [str(program), "-o", str(Path(name) / "program")]
        result = _run(mojo, command, Path(name), {"MODULAR_MOJO_MAX_IMPORT_PATH": str(upstream)})
    if result.returncode != 0:
        raise PatchsetError(f"{program} does not compile:\n{result.stderr.strip()}")


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


def _installed_packages(mojo: Path) -> list[Path]:
    folders = list(mojo.parent.parent.glob("lib/python3.*/site-packages/modular/lib/mojo"))
    if len(folders) != 1:
        raise PatchsetError(f"{mojo.parent.parent} has no MAX: run scripts/setup.sh first.")
    return sorted(folders[0].glob("*.mojoc"))


def _run(
    mojo: Path, arguments: list[str], folder: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the compiler without the variables that change what it imports, but ``variables``."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MODULAR_", "MOJO_"))
    }
    return subprocess.run(
        [str(mojo), *arguments],
        cwd=folder,
        env={**environment, **(variables or {})},
        text=True,
        capture_output=True,
        check=False,
    )
