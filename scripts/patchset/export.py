# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Writes the stack as mails that ``git am`` takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from patchset.changes import PatchSet, ReadFile, apply_patch, patched_paths, plan
from patchset.errors import PatchsetError
from patchset.scratch_git import commit_all, git
from patchset.stack import Stack, StackedCommit, read_stack

COVER_FILE = "cover-letter.txt"
"""Not a .patch file, so that ``git am OUT/*.patch`` leaves it alone."""


def export_series(patchset: PatchSet, read_upstream: ReadFile, out: Path) -> list[Path]:
    """Writes one mail for each commit of the stack, and a cover letter.

    Args:
        patchset: The overlay, the patches and their stack.
        read_upstream: Reads a file of the unpatched tree.
        out: The folder to write to, new or empty.

    Returns:
        The mails in order.

    Raises:
        PatchsetError: If the folder has files, the stack does not cover the patch set, or a
            patch or overlay file does not fit upstream's files.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PatchsetError(f"{out} is not an empty folder: name a new one.")
    stack = read_stack(patchset)
    # Refuses what apply would refuse.
    plan(patchset, read_upstream, lambda path: True)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="patchset-") as folder:
        tree = Path(folder)
        _commit_upstream(tree, stack, read_upstream)
        for commit in stack.commits:
            _commit(tree, patchset, commit)
        mails = ["format-patch", "--zero-commit", "--no-signature", "--full-index", "--quiet"]
        git(tree, [*mails, f"--output-directory={out.resolve()}", "upstream..HEAD"])
        (out / COVER_FILE).write_text(_cover_letter(tree, stack), encoding="utf-8")
    return sorted(out.glob("*.patch"))


def _commit_upstream(tree: Path, stack: Stack, read_upstream: ReadFile) -> None:
    """Commits upstream's version of every file that the stack touches."""
    git(tree, ["init", "--quiet", "--initial-branch=main"])
    for commit in stack.commits:
        for path in [*commit.overlay, *(patched_paths(commit.patch) if commit.patch else [])]:
            content = read_upstream(path)
            if content is not None:
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(content)
    commit_all(tree, "Upstream")
    git(tree, ["tag", "upstream"])


def _commit(tree: Path, patchset: PatchSet, commit: StackedCommit) -> None:
    for path in commit.overlay:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes((patchset.overlay / path).read_bytes())
    if commit.patch is not None:
        apply_patch(tree, commit.patch, [])
    commit_all(tree, commit.message)


def _cover_letter(tree: Path, stack: Stack) -> str:
    titles = [f"{number}. {commit.title}" for number, commit in enumerate(stack.commits, 1)]
    sizes = git(tree, ["diff", "--stat=100", "upstream", "HEAD"]).rstrip()
    return "\n".join([stack.title, "", stack.body, "", *titles, "", sizes, ""])
