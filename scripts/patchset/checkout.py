# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A Modular checkout: its version, its state, and writing to it all or nothing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from patchset.errors import PatchsetError

VERSION_FILE = "bazel/mojo.MODULE.bazel"
"""Where the monorepo names the version of MAX it belongs to, as ``MAX_PACKAGE_VERSION``."""

PYTHON_FOLDER = "max/python/max"
"""The Python package, which a wheel holds as ``max``."""


class Checkout:
    """A git checkout of the Modular monorepo.

    The monorepo keeps its version in ``bazel/mojo.MODULE.bazel``, as ``MAX_PACKAGE_VERSION``.
    Between releases that is the version of the nightly packages that the checkout builds
    against, as ``26.7.0.dev2026092205``, and leads up to the release it begins with.
    """

    def __init__(self, root: Path) -> None:
        """Opens the checkout at ``root``.

        Raises:
            PatchsetError: If it is not the root of a Modular checkout with a commit.
        """
        self.root = root.resolve()
        if not self.root.is_dir():
            raise PatchsetError(f"{root} is not a folder: name a checkout of the Modular monorepo.")
        top = self._git(["rev-parse", "--show-toplevel"], check=False)
        if top.returncode != 0 or Path(os.fsdecode(top.stdout.rstrip(b"\n"))) != self.root:
            raise PatchsetError(f"{root} is not the root of a git checkout.")
        for path in (VERSION_FILE, PYTHON_FOLDER):
            if not (self.root / path).exists():
                raise PatchsetError(f"{root} is not a Modular checkout: it has no {path}.")
        if self._git(["rev-parse", "--verify", "--quiet", "HEAD"], check=False).returncode != 0:
            raise PatchsetError(f"{root} has no commit to compare its files with.")

    def check_version(self, expected: str) -> None:
        """Makes sure that the checkout is of MAX ``expected`` or of a nightly leading up to it.

        Raises:
            PatchsetError: If it is not, or does not say.
        """
        text = (self.root / VERSION_FILE).read_text()
        match = re.search(r'^MAX_PACKAGE_VERSION\s*=\s*"([^"]+)"', text, re.MULTILINE)
        if match is None:
            raise PatchsetError(f"{VERSION_FILE} does not name a MAX_PACKAGE_VERSION.")
        try:
            version = Version(match[1])
        except InvalidVersion as error:
            raise PatchsetError(f"{VERSION_FILE} names no version of MAX: {error}.") from error
        if (
            version.local
            or version.is_postrelease
            or Version(version.base_version) != Version(expected)
        ):
            raise PatchsetError(
                f"{VERSION_FILE} says MAX {version}, and this patch set is for MAX {expected}."
            )

    def committed(self, path: str) -> bytes | None:
        """Returns the file as the current commit has it, or None."""
        result = self._git(["cat-file", "blob", f"HEAD:{path}"], check=False)
        return result.stdout if result.returncode == 0 else None

    def current(self, path: str) -> bytes | None:
        """Returns the file as it is in the working tree, or None.

        Raises:
            PatchsetError: If the path is a folder or leads through a link.
        """
        file = self.root / path
        if file.resolve() != file:
            raise PatchsetError(f"{path} leads through a link to {file.resolve()}.")
        if file.is_dir():
            raise PatchsetError(f"{path} is a folder.")
        return file.read_bytes() if file.exists() else None

    def files(self, folder: str) -> list[str]:
        """Paths of the files below ``folder``, tracked or new, sorted; what git ignores is not."""
        listing = self._git(
            ["ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", folder]
        )
        return sorted({os.fsdecode(name) for name in listing.stdout.split(b"\0") if name})

    def modified(self) -> list[str]:
        """Paths of tracked files that differ from the current commit, staged or not."""
        listing = self._git(["diff", "HEAD", "--name-only", "--no-renames", "-z"])
        return sorted(os.fsdecode(name) for name in listing.stdout.split(b"\0") if name)

    def staged(self, paths: Sequence[str]) -> list[str]:
        """Those of ``paths`` whose entry in the index differs from the current commit."""
        listing = self._git(
            ["diff", "--cached", "--name-only", "--no-renames", "-z", "HEAD", "--", *paths]
        )
        return sorted(os.fsdecode(name) for name in listing.stdout.split(b"\0") if name)

    def write(self, contents: Mapping[str, bytes | None]) -> None:
        """Gives each file its content, or removes it where that is None.

        When one cannot be written, those already written are put back.

        Raises:
            PatchsetError: If a file cannot be written.
        """
        undo: dict[str, bytes | None] = {}
        try:
            for path, content in contents.items():
                undo[path] = self.current(path)
                self._put(path, content)
        except BaseException as error:
            for path, content in reversed(undo.items()):
                self._put(path, content)
            if isinstance(error, OSError):
                raise PatchsetError(
                    f"{path} cannot be written ({error.strerror}); nothing was changed."
                ) from error
            raise

    def _put(self, path: str, content: bytes | None) -> None:
        file = self.root / path
        if content is None:
            file.unlink(missing_ok=True)
            self._remove_empty_folders(PurePosixPath(path).parent)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
        part = file.with_name(f"{file.name}.patchset-part")
        try:
            part.write_bytes(content)
            part.chmod(mode)
            part.replace(file)
        except BaseException:
            part.unlink(missing_ok=True)
            self._remove_empty_folders(PurePosixPath(path).parent)
            raise

    def _remove_empty_folders(self, folder: PurePosixPath) -> None:
        """Removes ``folder`` and those above it as far as they are empty: git keeps none."""
        while folder.parts:
            try:
                (self.root / folder).rmdir()
            except OSError:
                return
            folder = folder.parent

    def _git(
        self, arguments: Sequence[str], check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("GIT_")
        }
        result = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            env={**environment, "LC_ALL": "C"},
            capture_output=True,
            check=False,
        )
        if check and result.returncode != 0:
            reason = result.stderr.decode(errors="replace").strip()
            raise PatchsetError(f"git cannot read {self.root}: {reason}.")
        return result
