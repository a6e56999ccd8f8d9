# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Making the patched ``max`` wheel from upstream's."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from patchset.base_wheel import check_base_wheel
from patchset.changes import Change, PatchSet, plan
from patchset.checkout import PYTHON_FOLDER, Checkout
from patchset.errors import PatchsetError
from patchset.kernel_build import PACKAGES, compile_kernels, kernel_folder, sources_digest
from patchset.wheel_file import read_wheel, write_wheel

KERNEL_MEMBERS = {package: f"modular/lib/mojo/{package}.mojoc" for package in PACKAGES}
"""The kernel packages in the wheel: beside the packages that ``max-mojo-libs`` installs."""

MANIFEST_MEMBER = "max/nn/kernel_packages.json"
"""What the installed package checks the kernel packages against."""


def build_wheel(
    patchset: PatchSet, base_wheel: Path, python_version: str, mojo: Path, folder: Path
) -> Path:
    """Builds the patched wheel in ``folder`` and returns its path.

    The same inputs give the same bytes.

    Args:
        patchset: The overlay and patches.
        base_wheel: Upstream's wheel of the pinned version.
        python_version: CPython version of the wheel, as ``3.12``.
        mojo: The Mojo compiler of the pinned version.
        folder: Where to write the wheel.

    Raises:
        PatchsetError: If the base wheel is not upstream's, a patch does not apply, or a
            kernel package is missing or does not compile.
    """
    check_base_wheel(patchset.root, base_wheel, python_version)
    members = read_wheel(base_wheel)
    changes = plan(
        patchset, lambda path: members.get(_member_of(path)), lambda path: bool(_member_of(path))
    )
    return _build(patchset, patchset.overlay, base_wheel, members, changes, mojo, folder)


def build_wheel_from_checkout(
    patchset: PatchSet,
    checkout: Checkout,
    base_wheel: Path,
    python_version: str,
    mojo: Path,
    folder: Path,
) -> Path:
    """Builds the wheel from a checkout that the patch set was applied to.

    Python comes from the checkout's working tree and the kernel packages from its sources;
    what upstream compiles comes from upstream's wheel.

    Args:
        patchset: What names the versions.
        checkout: The patched checkout.
        base_wheel: Upstream's wheel of the pinned version.
        python_version: CPython version of the wheel, as ``3.12``.
        mojo: The Mojo compiler of the pinned version.
        folder: Where to write the wheel.

    Raises:
        PatchsetError: If the base wheel is not upstream's, or a kernel package is missing or
            does not compile.
    """
    check_base_wheel(patchset.root, base_wheel, python_version)
    members = read_wheel(base_wheel)
    changes = checkout_changes(checkout, members)
    return _build(patchset, checkout.root, base_wheel, members, changes, mojo, folder)


def checkout_changes(checkout: Checkout, members: Mapping[str, bytes]) -> list[Change]:
    """What the working tree changes of upstream's wheel.

    A file that upstream commits and its wheel leaves out stays out.
    """
    changes = []
    for path in checkout.files(PYTHON_FOLDER):
        name = _member_of(path)
        before, after = members.get(name), checkout.current(path)
        if name and before != after and (before is not None or not checkout.committed(path)):
            changes.append(Change(path, before, after))
    return changes


def _build(
    patchset: PatchSet,
    tree: Path,
    base_wheel: Path,
    members: dict[str, bytes],
    changes: list[Change],
    mojo: Path,
    folder: Path,
) -> Path:
    """Builds the wheel from upstream's members, changed files, and the tree's kernel packages."""
    pin = patchset.pin
    for change in changes:
        _put(members, _member_of(change.path), change.after)

    packages = {}
    for package, member in KERNEL_MEMBERS.items():
        sources = kernel_folder(tree, package)
        kernels = compile_kernels(sources, mojo, pin.mojo_version)
        packages[package] = {
            "package_sha256": hashlib.sha256(kernels).hexdigest(),
            "sources_sha256": sources_digest(sources),
        }
        _add_new(members, member, kernels)
    manifest = {
        "max_version": pin.max_version,
        "mojo_version": pin.mojo_version,
        "packages": packages,
    }
    _add_new(members, MANIFEST_MEMBER, (json.dumps(manifest, indent=2) + "\n").encode())

    dist_info = f"max-{pin.max_version}.dist-info"
    _set_version(members, f"{dist_info}/METADATA", pin.max_version, pin.wheel_version)
    _add_new(members, f"{dist_info}/LICENSE.max-gpt-oss", (patchset.root / "LICENSE").read_bytes())
    _add_new(members, f"{dist_info}/NOTICE.max-gpt-oss", _notice(pin.max_version, changes).encode())
    del members[f"{dist_info}/RECORD"]
    members = {
        _renamed(name, pin.max_version, pin.wheel_version): content
        for name, content in members.items()
    }
    wheel = folder / _renamed(base_wheel.name, pin.max_version, pin.wheel_version)
    write_wheel(wheel, members, f"max-{pin.wheel_version}.dist-info/RECORD")
    return wheel


def _member_of(path: str) -> str:
    """The wheel's name of a monorepo path; empty for what upstream's wheel leaves out."""
    if not path.startswith(f"{PYTHON_FOLDER}/") or path.endswith("/BUILD.bazel"):
        return ""
    return path.removeprefix(PYTHON_FOLDER.removesuffix("max"))


def _renamed(name: str, upstream_version: str, wheel_version: str) -> str:
    """The name with the version of the wheel where it begins with the upstream version."""
    prefix = f"max-{upstream_version}"
    return f"max-{wheel_version}{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def _put(members: dict[str, bytes], name: str, content: bytes | None) -> None:
    if content is None:
        del members[name]
    else:
        members[name] = content


def _add_new(members: dict[str, bytes], name: str, content: bytes) -> None:
    if name in members:
        raise PatchsetError(f"{name} is in the wheel already.")
    members[name] = content


def _set_version(members: dict[str, bytes], name: str, old: str, new: str) -> None:
    text, count = re.subn(
        rf"^Version: {re.escape(old)}$", f"Version: {new}", members[name].decode(), flags=re.M
    )
    if count != 1:
        raise PatchsetError(f"{name} does not say 'Version: {old}' once.")
    members[name] = text.encode()


def _notice(max_version: str, changes: list[Change]) -> str:
    kinds: Mapping[str, list[Change]] = {
        "Changed files": [c for c in changes if c.before is not None and c.after is not None],
        "Added files": [c for c in changes if c.before is None],
        "Removed files": [c for c in changes if c.after is None],
    }
    lines = [
        f"This is Modular's max {max_version} with changes by the max-gpt-oss authors.",
        "It is not Modular's release and Modular does not support it.",
        "",
        "The changes are under the Apache License 2.0 with LLVM exceptions: see",
        "LICENSE.max-gpt-oss. Everything else is as Modular published it, under the terms in",
        "LICENSE and Third-Party-Notices. Those hold for Modular's binaries, which the wheel",
        "contains: it is for the use of whoever built it, and not to be passed on.",
    ]
    for title, changed in kinds.items():
        if changed:
            lines += ["", f"{title}:", *(f"  {_member_of(change.path)}" for change in changed)]
    built = [*KERNEL_MEMBERS.values(), MANIFEST_MEMBER]
    lines += ["", "Added by the build:", *(f"  {member}" for member in built)]
    return "\n".join(lines) + "\n"
