# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The version of MAX that the patch set is made for, read from ``pyproject.toml`` and the lock."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchset.errors import PatchsetError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOCK_FILE = "requirements.lock"


@dataclass(frozen=True)
class Pin:
    """What the patch set is pinned to."""

    max_version: str
    """Version of MAX, as ``26.7.0``."""
    mojo_version: str
    """Version of the Mojo compiler that belongs to it, as ``1.2.0``."""
    local_label: str
    """Label that sets the patched wheel apart, as ``gptoss.1``."""
    replaced_files: Mapping[str, str]
    """Monorepo path of each upstream file that the overlay replaces, with its SHA-256."""

    @property
    def wheel_version(self) -> str:
        """Version of the patched wheel, as ``26.7.0+gptoss.1``."""
        return f"{self.max_version}+{self.local_label}"


def read_pin(root: Path) -> Pin:
    """Reads the pin of the patch set at ``root``.

    Raises:
        PatchsetError: If ``pyproject.toml`` does not pin ``modular==VERSION`` exactly, or the
            lock file has no ``mojo``.
    """
    project_file = root / "pyproject.toml"
    project: dict[str, Any] = tomllib.loads(project_file.read_text())
    pins = [
        dependency.removeprefix("modular==")
        for dependency in project["project"]["dependencies"]
        if dependency.startswith("modular==")
    ]
    if len(pins) != 1:
        raise PatchsetError(f"{project_file} must have one dependency 'modular==VERSION'.")
    settings = project["tool"]["max-gpt-oss"]
    return Pin(
        max_version=pins[0],
        mojo_version=locked_version(root, "mojo"),
        local_label=settings["local-version"],
        replaced_files=settings["replaced-files"],
    )


def locked_version(root: Path, package: str) -> str:
    """Returns the version of ``package`` in the lock file.

    Raises:
        PatchsetError: If the lock file does not have the package exactly once.
    """
    lock_file = root / LOCK_FILE
    versions = re.findall(rf"^{re.escape(package)}==(\S+)", lock_file.read_text(), re.MULTILINE)
    if len(versions) != 1:
        raise PatchsetError(f"{lock_file} must lock {package} once; run scripts/lock.sh.")
    return str(versions[0])


def locked_hashes(root: Path, package: str) -> frozenset[str]:
    """Returns the SHA-256 digests, in hex, that the lock file accepts for ``package``.

    Raises:
        PatchsetError: If the lock file has none.
    """
    lock_file = root / LOCK_FILE
    entry = re.search(
        rf"^{re.escape(package)}==.*\n((?: +--hash=.*\n)+)", lock_file.read_text(), re.MULTILINE
    )
    if entry is None:
        raise PatchsetError(f"{lock_file} has no hashes of {package}; run scripts/lock.sh.")
    return frozenset(re.findall(r"sha256:([0-9a-f]{64})", entry[1]))
