# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The patched wheel: its bytes, its metadata, and what it refuses to be built from."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from patchset.base_wheel import check_base_wheel, fetch_base_wheel
from patchset.changes import PatchSet
from patchset.errors import PatchsetError
from patchset.kernel_build import PACKAGES, compile_kernels, find_mojo, kernel_folder
from patchset.wheel_build import KERNEL_MEMBERS, MANIFEST_MEMBER
from patchset.wheel_file import read_wheel

THIS_PYTHON = f"3.{sys.version_info.minor}"
OTHER_PYTHON = "3.12" if THIS_PYTHON != "3.12" else "3.13"
CACHE = Path.home() / ".cache" / "max-gpt-oss"
SOURCES = ["LICENSE", "overlay", "patches", "pyproject.toml", "requirements.lock", "scripts"]


def build(root: Path, output: Path, *options: str) -> Path:
    """Runs scripts/build_wheel.py of the repository at ``root``."""
    output.parent.mkdir(parents=True, exist_ok=True)
    script = root / "scripts" / "build_wheel.py"
    command = [sys.executable, str(script), "--output", str(output), "--cache-dir", str(CACHE)]
    result = subprocess.run(
        [*command, *options], text=True, capture_output=True, check=True, cwd=output.parent
    )
    return Path(result.stdout.splitlines()[-1])


def refusal(root: Path, *options: str) -> str:
    """Runs scripts/build_wheel.py, which has to refuse, and returns what it says."""
    command = [sys.executable, str(root / "scripts" / "build_wheel.py"), *options]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    assert result.returncode != 0
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def base(repository: Path) -> Path:
    """Upstream's wheel."""
    return fetch_base_wheel(repository, CACHE, THIS_PYTHON)


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patched wheel."""
    return build(repository, tmp_path_factory.mktemp("wheel") / "dist")


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    """A copy of what the build reads, for one test to change."""
    root = tmp_path / "copy"
    root.mkdir()
    for name in SOURCES:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, root / name)
        else:
            shutil.copy(repository / name, root / name)
    return root


def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    members = read_wheel(wheel)
    (name,) = (name for name in members if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(members[name].decode())


def test_name_has_the_local_version(repository: Path, wheel: Path, base: Path) -> None:
    pin = PatchSet.at(repository).pin
    assert wheel.name == base.name.replace(pin.max_version, pin.wheel_version)
    assert metadata(wheel)["Version"] == pin.wheel_version


def test_another_build_elsewhere_has_the_same_bytes(wheel: Path, copy: Path) -> None:
    again = build(copy, copy / "somewhere" / "else")
    assert (
        hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(wheel.read_bytes()).digest()
    )


def test_record_is_right(repository: Path, wheel: Path) -> None:
    members = read_wheel(wheel)
    record = f"max-{PatchSet.at(repository).pin.wheel_version}.dist-info/RECORD"
    rows = list(csv.reader(members[record].decode().splitlines()))
    assert sorted(row[0] for row in rows) == sorted(members)
    for name, digest, size in rows:
        if name == record:
            assert (digest, size) == ("", "")
            continue
        algorithm, _, encoded = digest.partition("=")
        assert algorithm == "sha256"
        padded = encoded + "=" * (-len(encoded) % 4)
        assert base64.urlsafe_b64decode(padded) == hashlib.sha256(members[name]).digest()
        assert int(size) == len(members[name])


def test_archive_is_sorted_and_has_no_times(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    assert names[-1].endswith(".dist-info/RECORD")
    assert names[:-1] == sorted(names[:-1])
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {member.external_attr >> 16 for member in members} == {0o100644}


def test_metadata_differs_in_the_version_alone(wheel: Path, base: Path) -> None:
    ours, upstream = metadata(wheel), metadata(base)
    assert [item for item in ours.items() if item[0] != "Version"] == [
        item for item in upstream.items() if item[0] != "Version"
    ]
    assert f"max-core=={upstream['Version']}" in ours.get_all("Requires-Dist", [])


def test_only_planned_files_differ_from_upstream(repository: Path, wheel: Path, base: Path) -> None:
    pin = PatchSet.at(repository).pin
    prefix = f"max-{pin.max_version}."
    upstream = {
        name.replace(prefix, f"max-{pin.wheel_version}.", 1) if name.startswith(prefix) else name: (
            content
        )
        for name, content in read_wheel(base).items()
    }
    ours = read_wheel(wheel)
    info = f"max-{pin.wheel_version}.dist-info"
    assert upstream.keys() <= ours.keys()
    changed = {name for name, content in ours.items() if upstream.get(name) != content}
    bookkeeping = {f"{info}/{name}" for name in ("METADATA", "RECORD")}
    licences = {f"{info}/{name}" for name in ("LICENSE.max-gpt-oss", "NOTICE.max-gpt-oss")}
    code = changed - bookkeeping - licences
    assert bookkeeping | licences <= changed
    assert {*KERNEL_MEMBERS.values(), MANIFEST_MEMBER} <= code
    package = "max/pipelines/architectures/gpt_oss/"
    assert {f"{package}weight_adapters.py", f"{package}layers/moe.py"} <= code
    assert {f"{info}/LICENSE", f"{info}/Third-Party-Notices"} <= ours.keys() - changed
    notice = ours[f"{info}/NOTICE.max-gpt-oss"].decode()
    assert code == {line.strip() for line in notice.splitlines() if line.startswith("  ")}


def test_manifest_describes_the_kernel_packages(repository: Path, wheel: Path) -> None:
    members = read_wheel(wheel)
    pin = PatchSet.at(repository).pin
    manifest = json.loads(members[MANIFEST_MEMBER])
    assert manifest["max_version"] == pin.max_version
    assert manifest["mojo_version"] == pin.mojo_version
    assert manifest["packages"].keys() == KERNEL_MEMBERS.keys()
    for package, member in KERNEL_MEMBERS.items():
        digests = manifest["packages"][package]
        assert digests["package_sha256"] == hashlib.sha256(members[member]).hexdigest()
        assert len(digests["sources_sha256"]) == 64


def test_wheel_for_another_python(repository: Path, wheel: Path, tmp_path: Path) -> None:
    other = build(repository, tmp_path / "dist", "--python-version", OTHER_PYTHON)
    tag = f"cp{OTHER_PYTHON.replace('.', '')}"
    assert f"-{tag}-{tag}-" in other.name
    ours, theirs = read_wheel(wheel), read_wheel(other)
    assert any(f"_core.cpython-{tag[2:]}-" in name for name in theirs)
    for member in (*KERNEL_MEMBERS.values(), MANIFEST_MEMBER):
        assert theirs[member] == ours[member]


def test_given_base_wheel_is_used(
    repository: Path, wheel: Path, base: Path, tmp_path: Path
) -> None:
    output = tmp_path / "dist"
    again = build(repository, output, "--base-wheel", str(base), "--cache-dir", str(tmp_path / "c"))
    assert again.read_bytes() == wheel.read_bytes()
    assert not (tmp_path / "c").exists()


def test_missing_base_wheel_is_refused(repository: Path, tmp_path: Path) -> None:
    assert "nothing.whl is missing" in refusal(
        repository, "--base-wheel", str(tmp_path / "nothing.whl")
    )


def test_base_wheel_of_another_name_is_refused(
    repository: Path, base: Path, tmp_path: Path
) -> None:
    other = tmp_path / base.name.replace("26.7.0", "26.6.0")
    shutil.copy(base, other)
    assert "is not upstream's wheel" in refusal(repository, "--base-wheel", str(other))


def test_base_wheel_for_another_python_is_refused(repository: Path, base: Path) -> None:
    said = refusal(repository, "--base-wheel", str(base), "--python-version", OTHER_PYTHON)
    assert "is not upstream's wheel" in said


def test_changed_base_wheel_is_refused(repository: Path, base: Path, tmp_path: Path) -> None:
    damaged = tmp_path / base.name
    content = bytearray(base.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(PatchsetError, match=r"has a hash that requirements\.lock does not list"):
        check_base_wheel(repository, damaged, THIS_PYTHON)


def test_damaged_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.whl").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(PatchsetError, match=r"a\.whl cannot be read as a wheel"):
        read_wheel(tmp_path / "a.whl")


def test_download_that_fails_is_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchsetError, match=r"pip cannot download .* CPython 3\.9 .*--base-wheel"):
        fetch_base_wheel(repository, tmp_path, "3.9")


def test_python_version_of_another_form_is_refused(repository: Path) -> None:
    assert "three is not a version" in refusal(repository, "--python-version", "three")


def test_patch_that_does_not_apply_is_refused(copy: Path, base: Path) -> None:
    patch = sorted((copy / "patches").rglob("*.patch"))[0]
    lines = patch.read_text().splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith("@@")) + 1
    context = next(i for i in range(start, len(lines)) if lines[i].startswith((" ", "-")))
    lines[context] = f"{lines[context][0]}# no such line\n"
    patch.write_text("".join(lines))
    said = refusal(copy, "--base-wheel", str(base))
    assert f"{patch.name} does not apply" in said


@pytest.mark.parametrize("package", PACKAGES)
def test_missing_kernel_package_is_refused(copy: Path, base: Path, package: str) -> None:
    shutil.rmtree(copy / "overlay" / "max" / "kernels" / "src" / package)
    said = refusal(copy, "--base-wheel", str(base))
    assert f"{package}/__init__.mojo is missing" in said


def test_kernel_package_that_does_not_compile_is_refused(copy: Path, base: Path) -> None:
    package = copy / "overlay" / "max" / "kernels" / "src" / "mxfp4_moe"
    (package / "broken.mojo").write_text("this is no Mojo\n")
    (package / "__init__.mojo").write_text("from .broken import anything\n")
    said = refusal(copy, "--base-wheel", str(base))
    assert "max/kernels/src/mxfp4_moe does not compile" in said
    assert "broken.mojo" in said


def test_mojo_of_another_version_is_refused(repository: Path, tmp_path: Path) -> None:
    mojo = tmp_path / "mojo"
    mojo.write_text("#!/bin/sh\necho Mojo 1.1.0 '(abcdef)'\n")
    mojo.chmod(0o755)
    sources = kernel_folder(repository / "overlay", "mxfp4_moe")
    with pytest.raises(PatchsetError, match=r"Mojo 1\.1\.0.*asks for Mojo 1\.2\.0"):
        compile_kernels(sources, mojo, "1.2.0")


def test_environment_without_mojo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchsetError, match=r"has no mojo: run scripts/setup\.sh"):
        find_mojo(tmp_path / "python")


def test_kernel_package_without_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchsetError, match="there is no kernel package mxfp4_moe"):
        kernel_folder(tmp_path, "mxfp4_moe")
