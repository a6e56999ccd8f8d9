# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""scripts/apply.py on a checkout assembled from the pinned wheel's own files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from patchset_tools import commit_all, git, snapshot

from patchset.changes import PatchSet, patched_paths
from patchset.checkout import VERSION_FILE
from patchset.series import read_series

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(repository: Path) -> Run:
    """Runs scripts/apply.py."""

    def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(repository / "scripts" / "apply.py"), *map(str, arguments)]
        return subprocess.run(command, text=True, capture_output=True, check=False)

    return run_script


def first_patched(patchset: PatchSet) -> tuple[str, str]:
    """Name of the first patch and the first path it changes."""
    patch = read_series(patchset.patches)[0]
    return patch.name, patched_paths(patch)[0]


def refused(run: Run, checkout: Path, *words: str, options: tuple[str, ...] = ()) -> None:
    """Checks that the script refuses in one sentence with ``words``, and changes nothing."""
    before = snapshot(checkout)
    for arguments in ((checkout, *options), (checkout, "--check", *options)):
        result = run(*arguments)
        assert result.returncode == 1, result
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        for word in words:
            assert word in result.stderr
        assert snapshot(checkout) == before


def test_apply_then_reverse_restores_the_checkout(
    run: Run, checkout: Path, patchset: PatchSet
) -> None:
    before = snapshot(checkout)
    result = run(checkout)
    assert result.returncode == 0, result.stderr
    assert "applied the patch set for MAX 26.7.0" in result.stdout
    for path in patchset.overlay_files():
        assert (checkout / path).read_bytes() == (patchset.overlay / path).read_bytes()
    _, patched = first_patched(patchset)
    assert patched in git(checkout, "diff", "--name-only").splitlines()

    result = run(checkout, "--reverse")
    assert result.returncode == 0, result.stderr
    assert snapshot(checkout) == before
    assert git(checkout, "status", "--porcelain") == ""


def test_second_run_says_already_applied(run: Run, checkout: Path) -> None:
    assert run(checkout).returncode == 0
    applied = snapshot(checkout)
    for options in ((), ("--check",)):
        result = run(checkout, *options)
        assert result.returncode == 0
        assert result.stdout.startswith("already applied")
    assert snapshot(checkout) == applied


def test_check_changes_nothing(run: Run, checkout: Path) -> None:
    before = snapshot(checkout)
    result = run(checkout, "--check")
    assert result.returncode == 0
    assert "applies to" in result.stdout
    assert snapshot(checkout) == before

    assert run(checkout).returncode == 0
    applied = snapshot(checkout)
    result = run(checkout, "--reverse", "--check")
    assert result.returncode == 0
    assert "comes off" in result.stdout
    assert snapshot(checkout) == applied


def test_reverse_of_a_pristine_checkout_does_nothing(run: Run, checkout: Path) -> None:
    before = snapshot(checkout)
    result = run(checkout, "--reverse")
    assert result.returncode == 0
    assert result.stdout.startswith("not applied")
    assert snapshot(checkout) == before


def test_reverse_mends_an_apply_that_was_cut_short(
    run: Run, checkout: Path, patchset: PatchSet
) -> None:
    before = snapshot(checkout)
    assert run(checkout).returncode == 0
    _, patched = first_patched(patchset)
    git(checkout, "checkout", "--", patched)
    refused(run, checkout, "applied in part", "--reverse")
    assert run(checkout, "--reverse").returncode == 0
    assert snapshot(checkout) == before


def test_nightly_of_the_pinned_version_is_accepted(run: Run, checkout: Path) -> None:
    (checkout / VERSION_FILE).write_text('MAX_PACKAGE_VERSION = "26.7.0.dev2026092205"\n')
    commit_all(checkout)
    assert run(checkout).returncode == 0


def test_missing_folder_is_refused(run: Run, tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere")
    assert result.returncode == 1
    assert "nowhere is not a folder" in result.stderr


def test_folder_that_is_no_checkout_is_refused(run: Run, checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    refused(run, checkout, "is not the root of a git checkout")


def test_folder_inside_a_checkout_is_refused(run: Run, checkout: Path) -> None:
    refused(run, checkout / "max", "is not the root of a git checkout")


def test_repository_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "--quiet")
    refused(run, tmp_path / "other", "is not a Modular checkout", VERSION_FILE)


def test_repository_without_a_commit_is_refused(run: Run, checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    git(checkout, "init", "--quiet")
    refused(run, checkout, "has no commit")


@pytest.mark.parametrize("version", ["26.6.0", "26.7.1", "26.8.0.dev2026112205", "26.7.0+gptoss.1"])
@pytest.mark.parametrize("options", [(), ("--reverse",)])
def test_wrong_version_is_refused(
    run: Run, checkout: Path, version: str, options: tuple[str, ...]
) -> None:
    (checkout / VERSION_FILE).write_text(f'MAX_PACKAGE_VERSION = "{version}"\n')
    commit_all(checkout)
    refused(run, checkout, VERSION_FILE, version, "26.7.0", options=options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('VERSION = "26.7.0"\n', "does not name a MAX_PACKAGE_VERSION"),
        ('MAX_PACKAGE_VERSION = "newest"\n', "names no version"),
    ],
)
def test_unreadable_version_is_refused(run: Run, checkout: Path, text: str, words: str) -> None:
    (checkout / VERSION_FILE).write_text(text)
    commit_all(checkout)
    refused(run, checkout, VERSION_FILE, words)


@pytest.mark.parametrize("staged", [False, True])
def test_uncommitted_change_elsewhere_is_refused(run: Run, checkout: Path, staged: bool) -> None:
    (checkout / "max/python/max/tree.py").write_text("# edited\n")
    if staged:
        git(checkout, "add", "max/python/max/tree.py")
    refused(run, checkout, "max/python/max/tree.py", "uncommitted changes")


def test_uncommitted_change_of_a_patched_file_is_refused(
    run: Run, checkout: Path, patchset: PatchSet
) -> None:
    _, patched = first_patched(patchset)
    with (checkout / patched).open("a") as file:
        file.write("# edited\n")
    refused(run, checkout, patched, "uncommitted changes")


def test_removed_file_is_refused(run: Run, checkout: Path) -> None:
    (checkout / "max/python/max/tree.py").unlink()
    refused(run, checkout, "max/python/max/tree.py", "uncommitted changes")


def test_patch_that_does_not_apply_is_refused(run: Run, checkout: Path, patchset: PatchSet) -> None:
    name, patched = first_patched(patchset)
    (checkout / patched).write_text("# Everything is different here.\n")
    commit_all(checkout)
    refused(run, checkout, name, patched, "does not apply")


def test_patch_of_a_missing_file_is_refused(run: Run, checkout: Path, patchset: PatchSet) -> None:
    name, patched = first_patched(patchset)
    (checkout / patched).unlink()
    commit_all(checkout)
    refused(run, checkout, name, patched, "does not apply")


def test_committed_file_in_the_place_of_a_new_one_is_refused(run: Run, checkout: Path) -> None:
    path = "max/python/max/nn/mxfp4_moe/ops.py"
    (checkout / path).parent.mkdir()
    (checkout / path).write_text("# somebody else's\n")
    commit_all(checkout)
    refused(run, checkout, path, "not meant to replace it")


def test_untracked_file_in_the_place_of_a_new_one_is_refused(run: Run, checkout: Path) -> None:
    path = "max/python/max/nn/mxfp4_moe/ops.py"
    (checkout / path).parent.mkdir()
    (checkout / path).write_text("# somebody else's\n")
    refused(run, checkout, path, "is in the way")


def test_folder_in_the_place_of_a_new_file_is_refused(run: Run, checkout: Path) -> None:
    path = "max/python/max/nn/mxfp4_moe/ops.py"
    (checkout / path).mkdir(parents=True)
    refused(run, checkout, path, "is a folder")


def test_link_out_of_the_checkout_is_refused(run: Run, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (checkout / "max/python/max/nn/mxfp4_moe").symlink_to(tmp_path / "elsewhere")
    refused(run, checkout, "max/python/max/nn/mxfp4_moe", "leads through a link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_other_text_of_a_replaced_file_is_refused(
    run: Run, checkout: Path, patchset: PatchSet
) -> None:
    path = min(patchset.pin.replaced_files)
    with (checkout / path).open("a") as file:
        file.write("# A later version.\n")
    commit_all(checkout)
    refused(run, checkout, path, "is not the file of MAX 26.7.0")


def test_missing_replaced_file_is_refused(run: Run, checkout: Path, patchset: PatchSet) -> None:
    path = min(patchset.pin.replaced_files)
    (checkout / path).unlink()
    commit_all(checkout)
    refused(run, checkout, path, "is missing")


def test_committed_patch_set_is_refused(run: Run, checkout: Path) -> None:
    assert run(checkout).returncode == 0
    commit_all(checkout)
    refused(run, checkout, "already committed")


def test_reverse_of_an_edited_file_is_refused(run: Run, checkout: Path, patchset: PatchSet) -> None:
    assert run(checkout).returncode == 0
    path = patchset.overlay_files()[0]
    with (checkout / path).open("a") as file:
        file.write("# edited\n")
    refused(run, checkout, path, "was edited", options=("--reverse",))


def test_reverse_of_a_staged_file_is_refused(run: Run, checkout: Path, patchset: PatchSet) -> None:
    assert run(checkout).returncode == 0
    path = patchset.overlay_files()[0]
    git(checkout, "add", "--force", path)
    refused(run, checkout, path, "is staged", options=("--reverse",))
