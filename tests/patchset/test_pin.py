# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The pin, the lock files and the layout agree with each other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from patchset.changes import PatchSet, patched_paths
from patchset.errors import PatchsetError
from patchset.pin import locked_hashes, locked_version, read_pin
from patchset.series import read_series

LOCKS = ["requirements.lock", "requirements-reference.lock", "requirements-bootstrap.lock"]


def test_lock_has_the_pinned_max_and_its_mojo(repository: Path) -> None:
    pin = read_pin(repository)
    for package in ("modular", "max", "max-core", "max-mojo-libs", "max-shmem-libs"):
        assert locked_version(repository, package) == pin.max_version
    for package in ("mojo", "mojo-compiler"):
        assert locked_version(repository, package) == pin.mojo_version


def test_version_of_max_is_written_once(repository: Path) -> None:
    """Besides the lock, which follows it, only prose and tests may name the version."""
    pin = read_pin(repository)
    files = [repository / name for name in ("pyproject.toml", "BUILD.bazel", "WORKSPACE")]
    files += [file for file in (repository / "scripts").rglob("*") if file.suffix in (".py", ".sh")]
    named = [file.name for file in files if f'"{pin.max_version}"' in file.read_text()]
    named += [file.name for file in files if f"=={pin.max_version}" in file.read_text()]
    assert named == ["pyproject.toml"]


def test_max_has_a_hash_for_each_python(repository: Path) -> None:
    """Three platforms and five versions of CPython; those for Linux x86-64 are among them."""
    assert len(locked_hashes(repository, "max")) >= 5


@pytest.mark.parametrize("name", LOCKS)
def test_lock_is_hashed_and_names_no_host(repository: Path, name: str) -> None:
    text = (repository / name).read_text()
    assert "scripts/lock.sh" in text.partition("==")[0]
    assert "://" not in text
    entries = re.findall(r"^\S+==.*\n(.*)\n", text, re.MULTILINE)
    assert entries
    assert all(line.strip().startswith("--hash=sha256:") for line in entries)


def test_every_patch_is_in_the_series_or_of_sources_that_no_wheel_ships(
    repository: Path, pristine: Path
) -> None:
    patchset = PatchSet.at(repository)
    series, unshipped = read_series(patchset.patches), patchset.unshipped_patches()
    assert sorted([*series, *unshipped]) == sorted(patchset.patches.rglob("*.patch"))
    paths = [path for patch in unshipped for path in patched_paths(patch)]
    assert paths
    for path in paths:
        assert path.startswith("max/kernels/src/")
        assert not (pristine / path).exists()


def test_patches_and_overlay_stay_within_the_monorepo(repository: Path) -> None:
    patchset = PatchSet.at(repository)
    paths = patchset.overlay_files()
    for patch in read_series(patchset.patches):
        paths += patched_paths(patch)
    assert all(path.startswith("max/") for path in paths)
    assert set(patchset.pin.replaced_files) <= set(patchset.overlay_files())


@pytest.mark.parametrize(
    ("dependencies", "words"),
    [
        ('"modular>=26.7.0"', "must have one dependency"),
        ('"modular==1", "modular==2"', "must have one dependency"),
    ],
)
def test_project_without_one_pin_is_refused(tmp_path: Path, dependencies: str, words: str) -> None:
    (tmp_path / "pyproject.toml").write_text(
        f"[project]\ndependencies = [{dependencies}]\n"
        '[tool.max-gpt-oss]\nlocal-version = "x"\nreplaced-files = {}\n'
    )
    with pytest.raises(PatchsetError, match=words):
        read_pin(tmp_path)


def test_lock_without_the_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("max==26.7.0 \\\n")
    with pytest.raises(PatchsetError, match="must lock mojo once"):
        locked_version(tmp_path, "mojo")
    with pytest.raises(PatchsetError, match="has no hashes of max"):
        locked_hashes(tmp_path, "max")
