# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the patch set does to each file, worked out from upstream's text and without writing any."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchset.errors import PatchsetError
from patchset.pin import Pin, read_pin
from patchset.series import read_series

ReadFile = Callable[[str], "bytes | None"]
"""Gives the content of upstream's file at a monorepo path, or None where there is none."""


@dataclass(frozen=True)
class Change:
    """One file's content before and after; None where the file does not exist."""

    path: str
    """Path in the monorepo, with ``/``."""
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class PatchSet:
    """An overlay of whole files and a series of patches for one version of MAX."""

    root: Path
    pin: Pin

    @classmethod
    def at(cls, root: Path) -> PatchSet:
        """Reads the patch set whose ``pyproject.toml`` is in ``root``."""
        return cls(root, read_pin(root))

    @property
    def overlay(self) -> Path:
        """Folder that mirrors the monorepo and holds files that are ours."""
        return self.root / "overlay"

    @property
    def patches(self) -> Path:
        """Folder of the patches and their series."""
        return self.root / "patches"

    def unshipped_patches(self) -> list[Path]:
        """Patches of sources that no wheel ships, sorted; they are no part of the series."""
        return sorted((self.patches / "unshipped").glob("*.patch"))

    def overlay_files(self) -> list[str]:
        """Monorepo paths of the overlay's files, sorted.

        Hidden files and Python's caches, which tools leave behind, are no part of it.
        """
        files = (file.relative_to(self.overlay) for file in self.overlay.rglob("*"))
        return sorted(
            file.as_posix()
            for file in files
            if (self.overlay / file).is_file()
            and not any(part.startswith(".") or part == "__pycache__" for part in file.parts)
        )


def plan(
    patchset: PatchSet, read_upstream: ReadFile, selects: Callable[[str], bool]
) -> list[Change]:
    """Works out the changes to the files that ``selects`` picks, sorted by path.

    Args:
        patchset: The overlay and patches.
        read_upstream: Reads a file of the unpatched tree.
        selects: Says whether a monorepo path is part of the tree at hand.

    Raises:
        PatchsetError: If an overlay file would overwrite a file that it is not meant to
            replace, or a patch does not apply exactly.
    """
    changes = [
        _overlay_change(patchset, path, read_upstream(path))
        for path in patchset.overlay_files()
        if selects(path)
    ]
    changes += _patch_changes(
        read_series(patchset.patches), read_upstream, selects, {change.path for change in changes}
    )
    return sorted(changes, key=lambda change: change.path)


def _overlay_change(patchset: PatchSet, path: str, upstream: bytes | None) -> Change:
    pin = patchset.pin
    ours = (patchset.overlay / path).read_bytes()
    expected = pin.replaced_files.get(path)
    if upstream == ours:
        raise PatchsetError(f"{path} is already committed as the overlay has it.")
    if upstream is None and expected is not None:
        raise PatchsetError(f"{path} is missing: the overlay replaces it in MAX {pin.max_version}.")
    if upstream is not None and expected is None:
        raise PatchsetError(
            f"{path} exists upstream already, and the overlay is not meant to replace it."
        )
    if upstream is not None and hashlib.sha256(upstream).hexdigest() != expected:
        raise PatchsetError(
            f"{path} is not the file of MAX {pin.max_version} that the overlay replaces."
        )
    return Change(path, upstream, ours)


def _patch_changes(
    series: Sequence[Path],
    read_upstream: ReadFile,
    selects: Callable[[str], bool],
    overlaid: set[str],
) -> list[Change]:
    originals: dict[str, bytes | None] = {}
    with tempfile.TemporaryDirectory(prefix="patchset-") as folder:
        tree = Path(folder)
        for patch in series:
            touched = patched_paths(patch)
            for path in touched:
                if path in overlaid:
                    raise PatchsetError(f"{patch.name} patches {path}, which the overlay holds.")
                if selects(path) and path not in originals:
                    originals[path] = read_upstream(path)
                    _store(tree / path, originals[path])
            left_out = [f"--exclude={path}" for path in touched if not selects(path)]
            if len(left_out) < len(touched):
                apply_patch(tree, patch, left_out)
        return [
            Change(path, before, _load(tree / path)) for path, before in sorted(originals.items())
        ]


def patched_paths(patch: Path) -> list[str]:
    """Returns the monorepo paths that a patch touches.

    Raises:
        PatchsetError: If git cannot read the patch.
    """
    result = _git_apply(patch.parent, ["--numstat", "-z", str(patch)])
    if result.returncode != 0:
        raise PatchsetError(f"{patch} is not a patch that git can read: {_reason(result.stderr)}.")
    return [record.split("\t", 2)[2] for record in result.stdout.split("\0") if record]


def apply_patch(tree: Path, patch: Path, options: Sequence[str]) -> None:
    """Applies a patch to a tree, without fuzz.

    Raises:
        PatchsetError: If it does not apply exactly.
    """
    result = _git_apply(tree, [*options, str(patch)])
    if result.returncode != 0:
        raise PatchsetError(f"{patch.name} does not apply: {_reason(result.stderr)}.")


def _git_apply(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs ``git apply``, which allows no fuzz, outside any repository and configuration."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    return subprocess.run(
        ["git", "apply", "--whitespace=nowarn", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )


def _reason(stderr: str) -> str:
    """The first error that git reports, with the file and line it names."""
    errors = re.findall(r"^error: (.*)$", stderr, re.MULTILINE)
    return errors[0].rstrip(".") if errors else stderr.strip()


def _store(file: Path, content: bytes | None) -> None:
    if content is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _load(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None
