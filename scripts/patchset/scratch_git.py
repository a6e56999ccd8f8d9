# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Running git in trees of our own making, the same way on every machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from patchset.errors import PatchsetError

_IDENTITY = {"NAME": "The max-gpt-oss authors", "EMAIL": "max-gpt-oss@example.com"}
# One date for all, so that the same patch set gives the same bytes.
_DATE = "2026-11-22T00:00:00+00:00"


def git(tree: Path, arguments: Sequence[str]) -> str:
    """Runs git in ``tree`` with an identity, date and configuration of its own.

    Returns:
        What it prints.

    Raises:
        PatchsetError: If it fails.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{
            f"GIT_{who}_{key}": value
            for who in ("AUTHOR", "COMMITTER")
            for key, value in _IDENTITY.items()
        },
        "GIT_AUTHOR_DATE": _DATE,
        "GIT_COMMITTER_DATE": _DATE,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    result = subprocess.run(
        ["git", *arguments], cwd=tree, env=environment, text=True, capture_output=True, check=False
    )
    if result.returncode != 0:
        raise PatchsetError(f"git {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout


def commit_all(tree: Path, message: str) -> None:
    """Commits every file of the tree, ignored ones as well."""
    git(tree, ["add", "--all", "--force"])
    git(tree, ["commit", "--quiet", "--no-verify", "--allow-empty", "--message", message])
