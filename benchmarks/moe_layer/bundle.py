# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What travels to the GPU host: a folder with one archive, its versions, and this code."""

from __future__ import annotations

import json
import lzma
import shutil
import tarfile
from pathlib import Path

from moe_layer.errors import BenchmarkError

BENCHMARKS = Path(__file__).resolve().parents[1]
_FILTERS = [
    {"id": lzma.FILTER_X86},
    {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20},
]


def pack(folder: Path, kind: str, files: dict[str, Path], versions: dict[str, str]) -> None:
    """Writes a folder for the GPU host, in place of what it held of the kind.

    Args:
        folder: Where to.
        kind: ``ours`` or ``peers``.
        files: Files and folders by their name in the archive.
        versions: What they were made from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        lzma.open(_archive(folder, kind), "wb", format=lzma.FORMAT_XZ, filters=_FILTERS) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, path in sorted(files.items()):
            archive.add(path, name)
    _manifest(folder, kind).write_text(json.dumps(versions, indent=2) + "\n")
    code = folder / "moe_layer"
    shutil.rmtree(code, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(BENCHMARKS / "moe_layer", code, ignore=ignored)
    shutil.copy(BENCHMARKS / "measure.py", folder)


def unpack(folder: Path, kind: str, target: Path) -> dict[str, str]:
    """Unpacks an archive and returns the versions of what is in it.

    Raises:
        BenchmarkError: If the folder holds nothing of the kind.
    """
    for file in (_archive(folder, kind), _manifest(folder, kind)):
        if not file.is_file():
            raise BenchmarkError(
                f"{file} is missing: make it with measure.py build --{kind} {folder}."
            )
    target.mkdir(parents=True)
    with tarfile.open(_archive(folder, kind), "r:xz") as archive:
        archive.extractall(target)
    versions: dict[str, str] = json.loads(_manifest(folder, kind).read_text())
    return versions


def _archive(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.tar.xz"


def _manifest(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.json"
