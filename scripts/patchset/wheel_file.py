# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Reading and writing wheels as mappings from member name to content."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from patchset.errors import PatchsetError

_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100644 << 16
_UNIX = 3


def read_wheel(path: Path) -> dict[str, bytes]:
    """Returns the members of the wheel at ``path``.

    Raises:
        PatchsetError: If it is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                member.filename: archive.read(member)
                for member in archive.infolist()
                if not member.is_dir()
            }
    except (OSError, zipfile.BadZipFile) as error:
        raise PatchsetError(f"{path} cannot be read as a wheel: {error}.") from error


def write_wheel(path: Path, members: Mapping[str, bytes], record: str) -> None:
    """Writes a wheel whose bytes depend on nothing but its members.

    Args:
        path: File to write; replaced in one step when it is complete.
        members: Every member but the RECORD.
        record: Name of the RECORD, which is made here and comes last.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with zipfile.ZipFile(part, "w") as archive:
        for name in sorted(members):
            _add(archive, name, members[name])
        _add(archive, record, record_text(members, record).encode())
    part.replace(path)


def record_text(members: Mapping[str, bytes], record: str) -> str:
    """Returns the text of a RECORD: each member's name, digest and size, and the RECORD itself."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name in sorted(members):
        digest = base64.urlsafe_b64encode(hashlib.sha256(members[name]).digest())
        rows.writerow([name, f"sha256={digest.rstrip(b'=').decode()}", len(members[name])])
    rows.writerow([record, "", ""])
    return text.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, _TIMESTAMP)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.create_system = _UNIX
    member.external_attr = _REGULAR_FILE
    archive.writestr(member, content)
