# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""scripts/export_series.py: the series gives what apply gives, commit by commit."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from patchset_tools import Tree, commit_all, git, make_checkout, make_patch, make_patchset, snapshot

from patchset import application
from patchset.changes import PatchSet
from patchset.checkout import Checkout
from patchset.errors import PatchsetError
from patchset.export import COVER_FILE, export_series

# Without the option git strips [Kernels] and the like from titles.
AM = ["am", "--quiet", "--keep-non-patch"]
UPSTREAM = {"max/python/max/a.py": "a = 1\n", "max/python/max/b.py": "b = 1\n"}
STACK = """
cover-title = "Both"
cover-body = "All of it."

[[commit]]
title = "[Models] Add c"
body = "It was missing."
overlay = ["max/python/max/c*"]

[[commit]]
patch = "0001.patch"
"""


def export(repository: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "scripts/export_series.py"), *map(str, arguments)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def series(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported series."""
    out = tmp_path_factory.mktemp("export") / "series"
    result = export(repository, out)
    assert result.returncode == 0, result.stderr
    return out


def test_series_gives_what_apply_gives(
    series: Path, patchset: PatchSet, checkout: Path, tmp_path: Path
) -> None:
    applied = tmp_path / "applied"
    git(checkout, "clone", "--quiet", str(checkout), str(applied))
    application.apply(patchset, Checkout(applied), check=False)
    git(checkout, *AM, *map(str, sorted(series.glob("*.patch"))))
    assert snapshot(checkout) == snapshot(applied)


def test_every_commit_finds_what_it_imports(series: Path, checkout: Path) -> None:
    for mail in sorted(series.glob("*.patch")):
        git(checkout, *AM, str(mail))
        changed = git(checkout, "diff", "--name-only", "HEAD~", "HEAD").split()
        python = [checkout / path for path in changed if path.endswith(".py")]
        missing = {str(name) for file in python for name in missing_imports(checkout, file)}
        assert not missing, f"{mail.name}: {missing}"


def missing_imports(checkout: Path, file: Path) -> Iterator[str]:
    """Modules of ours and of gpt-oss that ``file`` imports and the checkout does not have."""
    root = checkout / "max/python"
    # Tests are no package, and import nothing by relative names.
    package = file.relative_to(root).parts[:-1] if file.is_relative_to(root) else ()
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ImportFrom):
            continue
        above = package[: len(package) - node.level + 1] if node.level else ()
        parts = (*above, *(node.module or "").split("."))
        if parts[:2] not in (("max", "nn"), ("max", "pipelines")):
            continue
        module = root.joinpath(*(part for part in parts if part))
        if not (module.with_suffix(".py").is_file() or (module / "__init__.py").is_file()):
            yield ".".join(parts)


def test_same_patch_set_gives_the_same_bytes(
    repository: Path, series: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    assert export(repository, again).returncode == 0
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in series.iterdir()
    }


def test_cover_letter_lists_the_commits(series: Path) -> None:
    text = (series / COVER_FILE).read_text()
    for mail in series.glob("*.patch"):
        subject = mail.read_text().split("\nSubject: ")[1].split("\n\n")[0].replace("\n", "")
        assert subject.partition("] ")[2] in text


def test_folder_with_files_is_refused(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    result = export(repository, tmp_path)
    assert result.returncode == 1
    assert "is not an empty folder" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def make_set(tmp_path: Path, stack: str | None) -> tuple[PatchSet, Path]:
    edited: Tree = {**UPSTREAM, "max/python/max/a.py": "a = 2\n"}
    patch = "Subject: [Models] Edit a\n\nFor b.\n\n" + make_patch(
        tmp_path / "patch", UPSTREAM, edited
    )
    patchset = make_patchset(
        tmp_path / "set", {"max/python/max/c.py": "c = 1\n"}, {"0001.patch": patch}
    )
    if stack is not None:
        (patchset.patches / "stack.toml").write_text(stack)
    return patchset, make_checkout(tmp_path / "checkout", UPSTREAM)


def test_messages_come_from_stack_and_patches(tmp_path: Path) -> None:
    patchset, checkout = make_set(tmp_path, STACK)
    mails = export_series(patchset, Checkout(checkout).committed, tmp_path / "out")
    git(checkout, *AM, *map(str, mails))
    log = git(checkout, "log", "--reverse", "--format=%s|%b", "-2").split("\n")
    assert [line for line in log if line] == [
        "[Models] Add c|It was missing.",
        "[Models] Edit a|For b.",
    ]


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (None, "stack.toml is missing"),
        (STACK.replace("c*", "d*"), "which no overlay file matches"),
        (STACK.replace('patch = "0001.patch"', 'patch = "0002.patch"'), "0002.patch, which the"),
        (STACK.partition("\n[[commit]]\npatch")[0], "0001.patch belongs to no commit"),
        (STACK + '[[commit]]\npatch = "0001.patch"\n', "0001.patch belongs to several commits"),
        (STACK.replace('body = "It was missing."\n', ""), "without a patch, or title, body"),
    ],
)
def test_wrong_stack_is_refused(tmp_path: Path, stack: str | None, words: str) -> None:
    patchset, checkout = make_set(tmp_path, stack)
    with pytest.raises(PatchsetError, match=words):
        export_series(patchset, Checkout(checkout).committed, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_patch_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    patchset, checkout = make_set(tmp_path, STACK)
    (checkout / "max/python/max/a.py").write_text("other = 1\n")
    commit_all(checkout)
    with pytest.raises(PatchsetError, match=r"0001\.patch does not apply"):
        export_series(patchset, Checkout(checkout).committed, tmp_path / "out")
