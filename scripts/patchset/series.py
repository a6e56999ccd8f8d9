# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The patches, in the order in which ``patches/series`` names them."""

from __future__ import annotations

from pathlib import Path

from patchset.errors import PatchsetError


def read_series(patches: Path) -> list[Path]:
    """Returns the patch files that ``patches/series`` names, in order.

    A line holds one path, relative to the folder; ``#`` starts a comment.

    Raises:
        PatchsetError: If the series is missing, names a patch that is missing, or names one twice.
    """
    series = patches / "series"
    if not series.is_file():
        raise PatchsetError(f"{series} is missing: it names the patches in order.")
    files: list[Path] = []
    for line in series.read_text().splitlines():
        name = line.partition("#")[0].strip()
        if not name:
            continue
        file = patches / name
        if not file.is_file():
            raise PatchsetError(f"{series} names {name}, which is missing.")
        if file in files:
            raise PatchsetError(f"{series} names {name} twice.")
        files.append(file)
    return files
