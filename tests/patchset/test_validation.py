# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What scripts/validate.py checks, each on something that does not fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from patchset_tools import (
    Tree,
    commit_all,
    git,
    make_checkout,
    make_patch,
    make_patchset,
    write_tree,
)

from patchset import application, validation
from patchset.base_wheel import CACHE, base_wheel_name, fetch_base_wheel
from patchset.changes import Change, PatchSet
from patchset.checkout import Checkout
from patchset.environment import make_environment
from patchset.errors import PatchsetError
from patchset.kernel_build import SOURCES, compile_program, find_mojo
from patchset.wheel_build import checkout_changes
from patchset.wheel_file import read_wheel, write_wheel

FILE = "max/python/max/a.py"
BEFORE: Tree = {FILE: "".join(f"line {number}\n" for number in range(1, 21))}
MIDDLE: Tree = {FILE: BEFORE[FILE].replace("line 10\n", "line ten\n")}
AFTER: Tree = {FILE: MIDDLE[FILE].replace("line ten\n", "line X\n")}


def two_patches(tmp_path: Path, second: Tree) -> PatchSet:
    """A patch set whose first patch makes MIDDLE, and whose second starts from ``second``."""
    after = {FILE: second[FILE].replace("line 12\n", "line twelve\n")}
    return make_patchset(
        tmp_path / "set",
        {},
        {
            "0001.patch": make_patch(tmp_path / "1", BEFORE, MIDDLE),
            "0002.patch": make_patch(tmp_path / "2", second, after),
        },
    )


def test_patches_that_stand_alone_pass(tmp_path: Path) -> None:
    checkout = Checkout(make_checkout(tmp_path / "modular", BEFORE))
    patchset = two_patches(tmp_path, BEFORE)
    validation.check_patches_alone(patchset, checkout.committed)
    validation.check_preimages(patchset, checkout.committed)


def test_patch_that_was_made_after_the_one_before_passes(tmp_path: Path) -> None:
    checkout = Checkout(make_checkout(tmp_path / "modular", BEFORE))
    validation.check_preimages(two_patches(tmp_path, MIDDLE), checkout.committed)


def test_patch_that_needs_another_is_named(tmp_path: Path) -> None:
    checkout = Checkout(make_checkout(tmp_path / "modular", BEFORE))
    patches = {
        "0001.patch": make_patch(tmp_path / "1", BEFORE, MIDDLE),
        "0002.patch": make_patch(tmp_path / "2", MIDDLE, AFTER),
    }
    patchset = make_patchset(tmp_path / "set", {}, patches)
    application.apply(patchset, checkout, check=True)
    with pytest.raises(PatchsetError, match=r"0002\.patch: does not apply: .*a\.py:9"):
        validation.check_patches_alone(patchset, checkout.committed)


KERNEL = "max/kernels/src/linalg/a.mojo"


@pytest.mark.parametrize(
    ("found", "tried"),
    [("before\na\nafter\n", ["fix.patch"]), (None, [])],
    ids=["sources", "wheel"],
)
def test_patch_of_sources_is_tried_where_they_are(
    tmp_path: Path, found: str | None, tried: list[str]
) -> None:
    patchset = set_with_kernel_patch(tmp_path)
    checkout = Checkout(make_checkout(tmp_path / "modular", {KERNEL: found} if found else {}))
    patches = validation.check_unshipped(patchset, checkout.committed)
    assert [patch.name for patch in patches] == tried


def test_patch_of_other_sources_is_named(tmp_path: Path) -> None:
    patchset = set_with_kernel_patch(tmp_path)
    checkout = Checkout(make_checkout(tmp_path / "modular", {KERNEL: "before\nc\nafter\n"}))
    with pytest.raises(PatchsetError, match=r"fix\.patch: does not apply: .*a\.mojo:1"):
        validation.check_unshipped(patchset, checkout.committed)


def set_with_kernel_patch(tmp_path: Path) -> PatchSet:
    """A patch set whose one patch is of a kernel's source."""
    before, after = {KERNEL: "before\na\nafter\n"}, {KERNEL: "before\nb\nafter\n"}
    patchset = make_patchset(tmp_path / "set", {}, {})
    patch = make_patch(tmp_path / "fix", before, after)
    write_tree(patchset.patches, {"unshipped/fix.patch": patch})
    return patchset


def test_patch_that_was_made_from_another_file_is_named(tmp_path: Path) -> None:
    checkout = Checkout(make_checkout(tmp_path / "modular", BEFORE))
    patchset = two_patches(tmp_path, {FILE: BEFORE[FILE] + "line 21\n"})
    validation.check_patches_alone(patchset, checkout.committed)
    with pytest.raises(PatchsetError, match=rf"0002\.patch was made from \w+ of {FILE}"):
        validation.check_preimages(patchset, checkout.committed)


def test_other_text_of_a_replaced_file_is_named(tmp_path: Path) -> None:
    checkout = Checkout(make_checkout(tmp_path / "modular", BEFORE))
    patchset = make_patchset(tmp_path / "set", {FILE: "ours\n"}, {}, {FILE: "other\n"})
    with pytest.raises(PatchsetError, match=r"a\.py: differs there"):
        validation.check_patches_alone(patchset, checkout.committed)


def test_module_that_does_not_import_is_named() -> None:
    with pytest.raises(PatchsetError, match="no_such_module"):
        validation.check_imports(["no_such_module"], Path(sys.executable))


def test_module_of_another_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(PatchsetError, match="json is "):
        validation.check_imports(["json"], Path(sys.executable))


def test_test_that_fails_is_named(tmp_path: Path) -> None:
    passing, failing = "max/tests/a/test_a.py", "max/tests/b/test_b.py"
    tests = {passing: "def test_a() -> None: pass\n", failing: "def test_b() -> None: assert 0\n"}
    # Set-up of upstream's above ours, which ours does without.
    tree = {**tests, "max/tests/conftest.py": "raise SystemExit(1)\n"}
    checkout = make_checkout(tmp_path / "modular", tree)
    python = Path(sys.executable)
    patchset = make_patchset(tmp_path / "set", {passing: tests[passing]}, {})
    assert validation.check_tests(patchset, checkout, python) == 1
    patchset = make_patchset(tmp_path / "both", tests, {})
    with pytest.raises(PatchsetError, match=r"tests/b do not pass:\nFAILED \S*test_b\.py::test_b"):
        validation.check_tests(patchset, checkout, python)


def test_type_errors_of_ours_are_told_from_upstreams(
    patchset: PatchSet, checkout: Path, tmp_path: Path
) -> None:
    """One in a file of ours, one in a line that a patch adds, and one that upstream has."""
    tree = Checkout(checkout)
    application.apply(patchset, tree, check=False)
    changes = validation.python_changes(patchset, tree)
    ours = next(change for change in changes if change.path.endswith("nn/op_checks.py"))
    patched = next(change for change in changes if change.path.endswith("weights/hf_utils.py"))
    broken = [
        _with(ours, "OURS: int = 'text'\n"),
        _with(patched, "PATCHED: int = 'text'\n"),
    ]
    pin, python_version = patchset.pin, f"3.{sys.version_info.minor}"
    wheel = patchset.root / "dist" / base_wheel_name(pin.wheel_version, python_version)
    members = {
        name: content for name, content in read_wheel(wheel).items() if not name.endswith("RECORD")
    }
    for change in broken:
        assert change.after is not None
        # A type error on a line that no patch adds is upstream's own business.
        text = change.after + (b"UPSTREAM: int = 'text'\n" if change.before else b"")
        members[change.path.removeprefix("max/python/")] = text
    record = f"max-{pin.wheel_version}.dist-info/RECORD"
    write_wheel(tmp_path / wheel.name, members, record)
    python = make_environment(tmp_path / "environment", tmp_path / wheel.name)
    with pytest.raises(PatchsetError) as caught:
        validation.check_types(patchset, broken, python)
    complaints = str(caught.value).splitlines()[1:]
    assert len(complaints) == 2, complaints
    assert "max/nn/op_checks.py" in complaints[0]
    assert "max/pipelines/weights/hf_utils.py" in complaints[1]


def _with(change: Change, line: str) -> Change:
    assert change.after is not None
    return Change(change.path, change.before, change.after + line.encode())


def test_added_lines_are_those_of_the_later_text() -> None:
    change = Change(FILE, b"one\ntwo\nthree\n", b"zero\none\n2\nthree\nfour\n")
    assert validation.added_lines(change) == {1, 3, 5}
    assert validation.added_lines(Change(FILE, None, b"one\ntwo\n")) == {1, 2}
    assert validation.added_lines(Change(FILE, b"one\ntwo\n", b"two\n")) == set()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("max/python/max/nn/op_checks.py", "max.nn.op_checks"),
        ("max/python/max/nn/mxfp4_moe/__init__.py", "max.nn.mxfp4_moe"),
    ],
)
def test_module_names(path: str, name: str) -> None:
    assert validation.module_name(path) == name


def test_program_that_does_not_compile_is_named(patchset: PatchSet, tmp_path: Path) -> None:
    (tmp_path / SOURCES).mkdir(parents=True)
    for package in ("dense_linear", "mxfp4_moe"):
        (tmp_path / SOURCES / package).symlink_to(patchset.overlay / SOURCES / package)
    program = tmp_path / "test_broken.mojo"
    program.write_text("from mxfp4_moe.problem import NoSuchThing\n\ndef main():\n    pass\n")
    mojo = find_mojo(Path(sys.executable))
    with pytest.raises(PatchsetError, match=r"test_broken\.mojo does not compile"):
        compile_program(program, tmp_path, mojo, validation.TARGET)


def test_wheels_that_differ_say_where(tmp_path: Path) -> None:
    wheels = [tmp_path / "one.whl", tmp_path / "other.whl"]
    for number, wheel in enumerate(wheels):
        write_wheel(wheel, {"same": b"same", "max/a.py": b"%d" % number}, "RECORD")
    validation.check_same_wheel(wheels[0], wheels[0])
    with pytest.raises(PatchsetError, match=r"they differ in RECORD, max/a\.py\."):
        validation.check_same_wheel(*wheels)


def test_wheel_of_a_checkout_leaves_out_what_upstreams_does(
    patchset: PatchSet, checkout: Path
) -> None:
    """A test that upstream commits is no part of the wheel, and an edit of a module is."""
    package = checkout / "max/python/max/nn"
    (package / "test_only_upstream.py").write_text("x = 1\n")
    commit_all(checkout)
    application.apply(patchset, Checkout(checkout), check=False)
    with (checkout / "max/python/max/tree.py").open("a") as file:
        file.write("# edited\n")
    base = fetch_base_wheel(patchset.root, CACHE, f"3.{sys.version_info.minor}")
    changed = {change.path for change in checkout_changes(Checkout(checkout), read_wheel(base))}
    expected = git(checkout, "diff", "--name-only").split()
    assert {*expected} <= changed
    assert "max/python/max/tree.py" in changed
    assert "max/python/max/nn/mxfp4_moe/ops.py" in changed
    assert "max/python/max/nn/test_only_upstream.py" not in changed


def test_checkout_of_another_version_is_refused(repository: Path, checkout: Path) -> None:
    (checkout / "bazel/mojo.MODULE.bazel").write_text('MAX_PACKAGE_VERSION = "26.6.0"\n')
    commit_all(checkout)
    command = [sys.executable, str(repository / "scripts/validate.py"), str(checkout)]
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    assert result.returncode == 1
    assert "MAX 26.6.0" in result.stderr
    assert result.stdout == ""
