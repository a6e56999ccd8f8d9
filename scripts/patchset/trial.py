# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What of the patch set fits another release of MAX, file by file."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from patchset.changes import PatchSet, ReadFile, apply_patch, patched_paths
from patchset.errors import PatchsetError
from patchset.series import read_series


@dataclass(frozen=True)
class Trial:
    """How one patch, or one overlay file, fares on another release."""

    name: str
    """The patch's file name, or the overlay file's monorepo path."""
    problem: str | None
    """What does not fit, naming file and line where git does; None where all does."""


def try_patchset(patchset: PatchSet, read_upstream: ReadFile) -> list[Trial]:
    """Tries every patch alone, and every overlay file, on another tree.

    Args:
        patchset: The overlay and patches.
        read_upstream: Reads a file of that tree.

    Returns:
        The patches in the order of the series, then overlay files with a counterpart.
    """
    trials = [try_patch(patch, read_upstream) for patch in read_series(patchset.patches)]
    for path in patchset.overlay_files():
        expected = patchset.pin.replaced_files.get(path)
        upstream = read_upstream(path)
        problem = None
        if expected is None and upstream is None:
            continue
        if expected is None:
            problem = "exists there, and the overlay is not meant to replace it"
        elif upstream is None:
            problem = "is missing there, and the overlay replaces it"
        elif hashlib.sha256(upstream).hexdigest() != expected:
            problem = f"differs there from MAX {patchset.pin.max_version}'s, which ours replaces"
        trials.append(Trial(path, problem))
    return trials


def try_patch(patch: Path, read_upstream: ReadFile) -> Trial:
    """Tries one patch alone on another tree."""
    with tempfile.TemporaryDirectory(prefix="patchset-") as folder:
        for path in patched_paths(patch):
            content = read_upstream(path)
            if content is not None:
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_bytes(content)
        try:
            apply_patch(Path(folder), patch, [])
        except PatchsetError as error:
            return Trial(patch.name, str(error).removeprefix(f"{patch.name} ").rstrip("."))
    return Trial(patch.name, None)
