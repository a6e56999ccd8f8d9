# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The commits that the patch set becomes upstream, read from ``patches/stack.toml``."""

from __future__ import annotations

import email
import email.policy
import re
import sys
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from patchset.changes import PatchSet
from patchset.errors import PatchsetError
from patchset.series import read_series

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STACK_FILE = "stack.toml"


@dataclass(frozen=True)
class StackedCommit:
    """One commit of the stack."""

    title: str
    body: str
    overlay: tuple[str, ...]
    """Monorepo paths of the overlay files that it adds or replaces."""
    patch: Path | None
    """The patch that it applies, if any."""

    @property
    def message(self) -> str:
        """The commit message."""
        return f"{self.title}\n\n{self.body}\n"


@dataclass(frozen=True)
class Stack:
    """All commits in order, and what to say about them together."""

    title: str
    body: str
    commits: tuple[StackedCommit, ...]


def read_stack(patchset: PatchSet) -> Stack:
    """Reads the stack of a patch set.

    Raises:
        PatchsetError: If an overlay file or a patch belongs to no commit or to several, or a
            commit has neither a patch nor a title and body.
    """
    file = patchset.patches / STACK_FILE
    if not file.is_file():
        raise PatchsetError(f"{file} is missing.")
    content: dict[str, Any] = tomllib.loads(file.read_text())
    files, patches = patchset.overlay_files(), read_series(patchset.patches)
    commits = tuple(_commit(entry, files, patches, file) for entry in content["commit"])
    _check_partition(files, [path for commit in commits for path in commit.overlay], file)
    _check_partition(
        [patch.name for patch in patches],
        [commit.patch.name for commit in commits if commit.patch],
        file,
    )
    return Stack(content["cover-title"], content["cover-body"].strip(), commits)


def _commit(
    entry: dict[str, Any], files: list[str], patches: list[Path], file: Path
) -> StackedCommit:
    overlay: list[str] = []
    for pattern in entry.get("overlay", []):
        found = [path for path in files if fnmatchcase(path, pattern)]
        if not found:
            raise PatchsetError(f"{file} names {pattern}, which no overlay file matches.")
        overlay += found
    name = entry.get("patch")
    if name is None:
        if not ("title" in entry and "body" in entry and overlay):
            raise PatchsetError(f"{file} has a commit without a patch, or title, body and overlay.")
        return StackedCommit(entry["title"], entry["body"].strip(), tuple(overlay), None)
    found_patches = [patch for patch in patches if patch.name == name]
    if not found_patches:
        raise PatchsetError(f"{file} names {name}, which the series does not have.")
    title, body = _message(found_patches[0])
    return StackedCommit(title, body, tuple(overlay), found_patches[0])


def _message(patch: Path) -> tuple[str, str]:
    """The title and body in a patch's header."""
    header = email.message_from_bytes(patch.read_bytes(), policy=email.policy.default)
    title = re.sub(r"\s+", " ", str(header["Subject"]))
    body = re.split(r"^(?:---|diff --git) ?", str(header.get_payload()), flags=re.MULTILINE)[0]
    return title, body.strip()


def _check_partition(expected: list[str], found: list[str], file: Path) -> None:
    for name in expected:
        if found.count(name) != 1:
            problem = "several commits" if name in found else "no commit"
            raise PatchsetError(f"{name} belongs to {problem} in {file}.")
