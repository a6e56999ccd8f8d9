# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Checks of the patch set on a checkout: from each patch alone to the wheel built from it.

Each check raises a PatchsetError that names what does not fit.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from patchset.changes import Change, PatchSet, ReadFile, apply_patch, patched_paths, plan
from patchset.checkout import PYTHON_FOLDER, Checkout
from patchset.errors import PatchsetError
from patchset.kernel_build import compile_program
from patchset.series import read_series
from patchset.trial import try_patch, try_patchset
from patchset.wheel_file import read_wheel

TARGET = "sm_90a"
"""The GPU that Mojo programs are compiled for."""

PROGRAMS = "max/kernels"
"""Where the overlay has Mojo programs, beside the packages."""

TESTS = "max/tests"
"""Where the overlay has tests in Python."""


def check_patches_alone(patchset: PatchSet, read_upstream: ReadFile) -> None:
    """Every patch applies to upstream's files without the others and without fuzz.

    Every file that the overlay replaces is the one it was made from.
    """
    for trial in try_patchset(patchset, read_upstream):
        if trial.problem:
            raise PatchsetError(f"{trial.name}: {trial.problem}.")


def check_unshipped(patchset: PatchSet, read_upstream: ReadFile) -> list[Path]:
    """Patches of sources that no wheel ships apply where the tree has those.

    Returns:
        The patches that were tried. A tree that was assembled from a wheel lacks their files,
        and says nothing about them.
    """
    tried = [
        patch
        for patch in patchset.unshipped_patches()
        if any(read_upstream(path) is not None for path in patched_paths(patch))
    ]
    for patch in tried:
        trial = try_patch(patch, read_upstream)
        if trial.problem:
            raise PatchsetError(f"{trial.name}: {trial.problem}.")
    return tried


def check_preimages(patchset: PatchSet, read_upstream: ReadFile) -> None:
    """Every file that a patch names is the one that it was made from, to the byte.

    That is upstream's, or what the patches before it make of that.
    """
    series = read_series(patchset.patches)
    with tempfile.TemporaryDirectory(prefix="patchset-") as folder:
        tree = Path(folder)
        for path in {path for patch in series for path in patched_paths(patch)}:
            content = read_upstream(path)
            if content is not None:
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_bytes(content)
        for patch in series:
            for path, expected in _preimages(patch):
                file = tree / path
                found = [_blob(read_upstream(path)), _blob(_content(file))]
                if not any(blob.startswith(expected) for blob in found):
                    raise PatchsetError(
                        f"{patch.name} was made from {expected} of {path}, and upstream's is "
                        f"{found[0][: len(expected)]}."
                    )
            apply_patch(tree, patch, [])


def _preimages(patch: Path) -> list[tuple[str, str]]:
    """Each path of a patch, with the name that git gave its content before."""
    found = re.findall(
        r"^diff --git a/(\S+) b/\S+\n(?:.*\n)*?index ([0-9a-f]+)\.\.", patch.read_text(), re.M
    )
    if not found:
        raise PatchsetError(f"{patch.name} does not say what it was made from.")
    return found


def check_imports(modules: Sequence[str], python: Path) -> None:
    """Every module imports, and is the one of the environment that ``python`` belongs to."""
    environment = python.parent.parent
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[2:]:\n"
        "    file = importlib.import_module(name).__file__\n"
        "    assert file.startswith(sys.argv[1]), f'{name} is {file}'\n"
    )
    result = _run([python, "-c", program, str(environment), *modules], environment)
    if result.returncode != 0:
        reason = result.stderr.strip().splitlines()[-1]
        raise PatchsetError(f"the patched Python does not import: {reason}")


def check_types(patchset: PatchSet, changes: Sequence[Change], python: Path) -> None:
    """Modules of ours have no type error, and no line that a patch adds to upstream's has one."""
    ours = [change for change in changes if not _is_patched(patchset, change)]
    theirs = [change for change in changes if _is_patched(patchset, change)]
    complaints = _mypy(patchset.root, ours, python)
    patched = {
        (change.path.removeprefix(f"{PYTHON_FOLDER}/"), line)
        for change in theirs
        for line in added_lines(change)
    }
    for complaint in _mypy(patchset.root, theirs, python):
        match = re.match(r".*?/site-packages/max/(\S+?):(\d+): ", complaint)
        if match is None or (match[1], int(match[2])) in patched:
            complaints.append(complaint)
    if complaints:
        raise PatchsetError("the patched Python has type errors:\n" + "\n".join(complaints))


def check_tests(patchset: PatchSet, tree: Path, python: Path) -> int:
    """The overlay's tests in Python pass where they lie; returns their number of folders.

    Each folder runs alone, as upstream's Bazel runs it, without the set-up of folders above.
    """
    folders = {
        str(Path(path).parent)
        for path in patchset.overlay_files()
        if path.startswith(f"{TESTS}/") and Path(path).match("test_*.py")
    }
    for folder in sorted(folders):
        options = ["--quiet", "--no-header", "-p", "no:cacheprovider", "-c", os.devnull]
        where = ["--rootdir", folder, "--confcutdir", folder, folder]
        result = _run([python, "-m", "pytest", *options, *where], tree)
        if result.returncode != 0:
            lines = [line for line in result.stdout.splitlines() if re.match("FAILED|ERROR", line)]
            reason = "\n".join(lines) or result.stderr.strip() or result.stdout.strip()
            raise PatchsetError(f"the tests in {folder} do not pass:\n{reason}")
    return len(folders)


def check_programs(patchset: PatchSet, tree: Path, mojo: Path) -> list[str]:
    """The kernels' Mojo tests and benchmarks compile where they lie; returns their names."""
    programs = [
        path
        for path in patchset.overlay_files()
        if path.startswith((f"{PROGRAMS}/test/", f"{PROGRAMS}/benchmarks/"))
        # Other files are modules that these import.
        and any(Path(path).match(f"{kind}_*.mojo") for kind in ("test", "bench"))
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda path: compile_program(tree / path, tree, mojo, TARGET), programs))
    return [Path(path).name for path in programs]


def check_same_wheel(wheel: Path, other: Path) -> None:
    """Two wheels have the same bytes."""
    if wheel.read_bytes() == other.read_bytes():
        return
    ours, theirs = read_wheel(wheel), read_wheel(other)
    different = sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    raise PatchsetError(
        "the wheel built from the checkout is another one; they differ in "
        f"{', '.join(different[:5]) or 'their compression'}"
        f"{' and others' if len(different) > 5 else ''}."
    )


def python_changes(patchset: PatchSet, checkout: Checkout) -> list[Change]:
    """What the patch set changes of a checkout's Python modules."""
    return plan(
        patchset,
        checkout.committed,
        lambda path: path.startswith(f"{PYTHON_FOLDER}/") and path.endswith(".py"),
    )


def module_name(path: str) -> str:
    """The module that a monorepo path is: ``max.nn`` of ``max/python/max/nn/__init__.py``."""
    parts = Path(path).relative_to(PYTHON_FOLDER).with_suffix("").parts
    return ".".join(["max", *(part for part in parts if part != "__init__")])


def added_lines(change: Change) -> set[int]:
    """Numbers of the lines of a changed file that it did not have before."""
    before, after = ((text or b"").decode().splitlines() for text in (change.before, change.after))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return {
        line + 1
        for tag, _, _, start, end in matcher.get_opcodes()
        if tag in ("insert", "replace")
        for line in range(start, end)
    }


def _is_patched(patchset: PatchSet, change: Change) -> bool:
    return not (patchset.overlay / change.path).is_file()


def _mypy(root: Path, changes: Sequence[Change], python: Path) -> list[str]:
    if not changes:
        return []
    modules = [argument for change in changes for argument in ("-m", module_name(change.path))]
    command: list[str | Path] = [python, "-m", "mypy", "--cache-dir=.mypy_cache/validation"]
    result = _run([*command, "--no-error-summary", *modules], root)
    lines = result.stdout.splitlines()
    if result.returncode not in (0, 1) or (result.returncode == 1 and not lines):
        raise PatchsetError(f"mypy failed: {result.stderr.strip() or result.stdout.strip()}")
    return [line for line in lines if ": error: " in line]


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _blob(content: bytes | None) -> str:
    """The name that git gives a file's content; zeros where there is no file."""
    if content is None:
        return 40 * "0"
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _run(command: Sequence[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MODULAR_") and name not in ("PYTHONPATH", "MYPYPATH")
    }
    return subprocess.run(
        command, cwd=folder, env=variables, text=True, capture_output=True, check=False
    )
