# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The patch engine on small checkouts and patch sets."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patchset_tools import (
    Tree,
    commit_all,
    git,
    make_checkout,
    make_patch,
    make_patchset,
    snapshot,
    write_tree,
)

from patchset import application
from patchset.application import Outcome
from patchset.checkout import Checkout
from patchset.errors import PatchsetError

LINES = [f"line {number}\n" for number in range(1, 31)]
UPSTREAM = {"max/python/max/a.py": "".join(LINES), "max/python/max/b.py": "b = 1\n"}


def edited(line: int, text: str = "edited\n") -> Tree:
    """UPSTREAM with one line of a.py replaced."""
    lines = [*LINES[: line - 1], text, *LINES[line:]]
    return {**UPSTREAM, "max/python/max/a.py": "".join(lines)}


def test_patches_stack_in_the_order_of_the_series(tmp_path: Path) -> None:
    first, second = edited(3, "first\n"), edited(3, "second\n")
    patches = {
        "z-first.patch": make_patch(tmp_path / "p1", UPSTREAM, first),
        "sub/a-second.patch": make_patch(tmp_path / "p2", first, second),
    }
    patchset = make_patchset(tmp_path / "set", {}, patches)
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    assert application.apply(patchset, Checkout(checkout), check=False) is Outcome.CHANGED
    assert (checkout / "max/python/max/a.py").read_text() == second["max/python/max/a.py"]


def test_series_has_comments_and_blank_lines(tmp_path: Path) -> None:
    patch = make_patch(tmp_path / "p", UPSTREAM, edited(3))
    patchset = make_patchset(tmp_path / "set", {}, {"a.patch": patch})
    (patchset.patches / "series").write_text("# The patches.\n\n  a.patch  # the only one\n")
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    assert application.apply(patchset, Checkout(checkout), check=False) is Outcome.CHANGED


@pytest.mark.parametrize(
    ("series", "words"),
    [("b.patch\n", "b.patch, which is missing"), ("a.patch\na.patch\n", "a.patch twice")],
)
def test_wrong_series_is_refused(tmp_path: Path, series: str, words: str) -> None:
    patch = make_patch(tmp_path / "p", UPSTREAM, edited(3))
    patchset = make_patchset(tmp_path / "set", {}, {"a.patch": patch})
    (patchset.patches / "series").write_text(series)
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    with pytest.raises(PatchsetError, match=words):
        application.apply(patchset, Checkout(checkout), check=False)


def test_missing_series_is_refused(tmp_path: Path) -> None:
    patchset = make_patchset(tmp_path / "set", {}, {})
    (patchset.patches / "series").unlink()
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    with pytest.raises(PatchsetError, match="series is missing"):
        application.apply(patchset, Checkout(checkout), check=False)


def test_file_that_is_no_patch_is_refused(tmp_path: Path) -> None:
    patchset = make_patchset(tmp_path / "set", {}, {"a.patch": "nothing of the kind\n"})
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    with pytest.raises(PatchsetError, match=r"a\.patch is not a patch"):
        application.apply(patchset, Checkout(checkout), check=False)


def test_patch_of_an_overlay_file_is_refused(tmp_path: Path) -> None:
    patch = make_patch(tmp_path / "p", UPSTREAM, edited(3))
    path = "max/python/max/a.py"
    patchset = make_patchset(tmp_path / "set", {path: "ours\n"}, {"a.patch": patch}, UPSTREAM)
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    with pytest.raises(PatchsetError, match=r"a\.patch patches .*a\.py, which the overlay holds"):
        application.apply(patchset, Checkout(checkout), check=False)


def test_context_that_differs_by_one_line_is_no_match(tmp_path: Path) -> None:
    patch = make_patch(tmp_path / "p", UPSTREAM, edited(3))
    patchset = make_patchset(tmp_path / "set", {}, {"a.patch": patch})
    checkout = make_checkout(tmp_path / "checkout", edited(4, "line 4, and more\n"))
    before = snapshot(checkout)
    with pytest.raises(PatchsetError, match=r"a\.patch does not apply: .*a\.py"):
        application.apply(patchset, Checkout(checkout), check=False)
    assert snapshot(checkout) == before


def test_late_patch_that_does_not_apply_changes_nothing(tmp_path: Path) -> None:
    patches = {
        "good.patch": make_patch(tmp_path / "p1", UPSTREAM, edited(3)),
        "bad.patch": make_patch(tmp_path / "p2", edited(20, "unknown\n"), edited(20)),
    }
    patchset = make_patchset(tmp_path / "set", {"max/new.txt": "new\n"}, patches)
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    before = snapshot(checkout)
    with pytest.raises(PatchsetError, match=r"bad\.patch does not apply"):
        application.apply(patchset, Checkout(checkout), check=False)
    assert snapshot(checkout) == before


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_failure_in_the_middle_of_writing_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The n-th file cannot be put in its place, as on a full disk."""
    overlay = {"max/new/deep/one.txt": "1\n", "max/new/two.txt": "2\n", "top.txt": "top\n"}
    patch = make_patch(tmp_path / "p", UPSTREAM, edited(3))
    patchset = make_patchset(tmp_path / "set", overlay, {"a.patch": patch})
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    before = snapshot(checkout)
    replace, calls = Path.replace, []

    def fail_once(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(PatchsetError, match=r"cannot be written \(No space left on device\)"):
        application.apply(patchset, Checkout(checkout), check=False)
    assert snapshot(checkout) == before


def test_modes_are_kept(tmp_path: Path) -> None:
    patch = make_patch(tmp_path / "p", UPSTREAM, edited(3))
    patchset = make_patchset(tmp_path / "set", {}, {"a.patch": patch})
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    file = checkout / "max/python/max/a.py"
    file.chmod(0o755)
    commit_all(checkout)
    application.apply(patchset, Checkout(checkout), check=False)
    assert file.stat().st_mode & 0o777 == 0o755


def test_hidden_files_and_caches_stay_out_of_the_overlay(tmp_path: Path) -> None:
    overlay = {"max/a.py": "", "max/.cache/x": "", "max/__pycache__/a.pyc": "", "max/.x": ""}
    assert make_patchset(tmp_path, overlay, {}).overlay_files() == ["max/a.py"]


TEXTS = st.lists(st.text(string.ascii_letters, max_size=3), max_size=8).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)
PATHS = st.sampled_from(
    [f"max/{folder}{name}.py" for folder in ("", "x/", "x/y/") for name in "ab"]
)
TREES = st.dictionaries(PATHS, TEXTS, max_size=4)


@settings(max_examples=25, deadline=None)
@given(before=TREES, after=TREES, overlay=TREES)
def test_apply_and_reverse_are_exact(before: Tree, after: Tree, overlay: Tree) -> None:
    """Any edits, new files and removed files, beside an overlay of new and replaced files."""
    new_files = {path.replace(".py", ".txt"): text for path, text in overlay.items()}
    replaced = {path.replace(".py", ".cfg"): text + "upstream\n" for path, text in overlay.items()}
    ours = {path: text + "ours\n" for path, text in replaced.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch = make_patch(folder / "patch", before, after)
        patches = {"a.patch": patch} if patch else {}
        patchset = make_patchset(folder / "set", {**new_files, **ours}, patches, replaced)
        root = make_checkout(folder / "checkout", {**before, **replaced})
        write_tree(root, {"max/untracked.txt": "kept\n"})
        pristine = snapshot(root)

        application.apply(patchset, Checkout(root), check=False)
        expected = {**after, **new_files, **ours}
        assert {path: (root / path).read_text() for path in expected} == expected
        assert not any((root / path).exists() for path in before.keys() - after.keys())
        assert application.apply(patchset, Checkout(root), False) is Outcome.NOTHING_TO_DO

        application.reverse(patchset, Checkout(root), check=False)
        assert snapshot(root) == pristine
        assert git(root, "status", "--porcelain", "--untracked-files=no") == ""
