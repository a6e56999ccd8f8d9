# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Helpers of the patch set's tests: git, tree snapshots and small patch sets."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from patchset.changes import PatchSet
from patchset.pin import Pin

MAX_VERSION = "26.7.0"
"""Version of the small patch sets made here; any would do."""

Tree = Mapping[str, str]
"""Text of each file by its path."""


def git(root: Path, *arguments: str) -> str:
    """Runs git in ``root`` as somebody, and returns what it prints."""
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "core.autocrlf=0"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, text=True, capture_output=True, check=True).stdout


def commit_all(root: Path) -> None:
    """Commits every file of the tree."""
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "Change")


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mode of every file outside ``.git``, and the folders, by path."""
    return {
        path.relative_to(root).as_posix(): (
            path.read_bytes() if path.is_file() else b"folder",
            path.stat().st_mode,
        )
        for path in root.rglob("*")
        if path.relative_to(root).parts[0] != ".git"
    }


def write_tree(root: Path, tree: Tree) -> None:
    """Writes each file."""
    for path, text in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, newline="")


def make_checkout(root: Path, tree: Tree) -> Path:
    """Makes a checkout that has a version, a Python package and ``tree``."""
    write_tree(
        root,
        {
            "bazel/mojo.MODULE.bazel": f'MAX_PACKAGE_VERSION = "{MAX_VERSION}"\n',
            "max/python/max/__init__.py": "",
            **tree,
        },
    )
    git(root, "init", "--quiet")
    commit_all(root)
    return root


def make_patchset(
    root: Path, overlay: Tree, patches: Tree, replaced: Mapping[str, str] | None = None
) -> PatchSet:
    """Makes a patch set; ``replaced`` has upstream's text of the files that overlay replaces."""
    write_tree(root / "overlay", overlay)
    write_tree(root / "patches", {"series": "\n".join(patches) + "\n", **patches})
    digests = {
        path: hashlib.sha256(text.encode()).hexdigest() for path, text in (replaced or {}).items()
    }
    return PatchSet(root, Pin(MAX_VERSION, "1.2.0", "test.1", digests))


def make_patch(folder: Path, before: Tree, after: Tree) -> str:
    """Returns the patch that turns ``before`` into ``after``, made by git in ``folder``."""
    folder.mkdir(parents=True)
    write_tree(folder, before)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", "Before")
    for path in before.keys() - after.keys():
        (folder / path).unlink()
    write_tree(folder, after)
    git(folder, "add", "--all", "--force")
    return git(folder, "diff", "--cached", "--no-renames", "--unified=1")
