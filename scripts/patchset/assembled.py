# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A Modular checkout assembled from the files of upstream's wheel."""

from __future__ import annotations

from pathlib import Path

from patchset.checkout import VERSION_FILE
from patchset.scratch_git import commit_all, git
from patchset.wheel_file import read_wheel


def assemble_checkout(root: Path, wheel: Path, max_version: str) -> None:
    """Makes the monorepo as far as a wheel has it, committed: its Python, and its version.

    Args:
        root: The folder to make.
        wheel: Upstream's wheel.
        max_version: The version of MAX that it is of.
    """
    for name, content in read_wheel(wheel).items():
        if name.startswith("max/"):
            file = root / "max" / "python" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    (root / VERSION_FILE).parent.mkdir()
    (root / VERSION_FILE).write_text(f'MAX_PACKAGE_VERSION = "{max_version}"\n')
    git(root, ["init", "--quiet"])
    commit_all(root, f"MAX {max_version}")
