# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Nothing here repeats upstream's files, beyond the context that locates a patch."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from patchset.base_wheel import CACHE, fetch_base_wheel
from patchset.changes import PatchSet
from patchset.series import read_series
from patchset.wheel_file import read_wheel

LONGEST_RUN = 7
"""Lines in a row that may read the same by coincidence, such as a block of imports."""

CONTEXT = 1
"""Lines of upstream's before and after a change in a patch."""

Lines = Sequence[str]


# A parameter, or a name that is passed for one, as an interface dictates.
DICTATED = re.compile(r"\w+:[^()=]+,|\w+=[\w.]+,")


def telling_lines(text: str) -> list[str]:
    """A text's lines without white space, and without those that say nothing by themselves."""
    lines = ("".join(line.split()) for line in text.splitlines())
    return [
        line for line in lines if len(re.sub(r"\W", "", line)) > 3 and not DICTATED.fullmatch(line)
    ]


def common_runs(ours: Mapping[str, Lines], theirs: Mapping[str, Lines]) -> Iterator[str]:
    """Names each of our files that shares more than LONGEST_RUN lines in a row, and where."""
    window = LONGEST_RUN + 1
    places: dict[tuple[str, ...], str] = defaultdict(str)
    for name, lines in theirs.items():
        for start in range(len(lines) - window + 1):
            places[tuple(lines[start : start + window])] = name
    for name, lines in ours.items():
        for start in range(len(lines) - window + 1):
            run = tuple(lines[start : start + window])
            if run in places:
                yield f"{name} repeats {places[run]} from {run[0]!r}"
                break


@pytest.fixture(scope="module")
def patchset(repository: Path) -> PatchSet:
    """The repository's own patch set."""
    return PatchSet.at(repository)


@pytest.fixture(scope="module")
def upstream(repository: Path) -> Mapping[str, Lines]:
    """The Python of the stock wheel."""
    wheel = fetch_base_wheel(repository, CACHE, f"3.{sys.version_info.minor}")
    files = {
        name: telling_lines(content.decode())
        for name, content in read_wheel(wheel).items()
        if name.endswith(".py")
    }
    assert len(files) > 500
    return files


def test_overlay_repeats_no_python_of_upstreams(
    patchset: PatchSet, upstream: Mapping[str, Lines]
) -> None:
    ours = {
        path: telling_lines((patchset.overlay / path).read_text())
        for path in patchset.overlay_files()
        if path.endswith(".py")
    }
    assert ours
    assert list(common_runs(ours, upstream)) == []


def test_a_copied_file_would_be_found(upstream: Mapping[str, Lines]) -> None:
    name = "max/nn/linear.py"
    original = upstream[name]
    long, short = original[100 : 101 + LONGEST_RUN], original[100 : 100 + LONGEST_RUN]
    assert list(common_runs({"copy.py": ["x = 1", *long, "y = 2"]}, {name: original}))
    assert not list(common_runs({"copy.py": ["x = 1", *short, "y = 2"]}, {name: original}))


def test_patches_have_little_context(patchset: PatchSet) -> None:
    for patch in [*read_series(patchset.patches), *patchset.unshipped_patches()]:
        for hunk in re.split(r"^@@.*@@.*\n", patch.read_text(), flags=re.MULTILINE)[1:]:
            lines = hunk.partition("\ndiff --git")[0].splitlines()
            runs = "".join("c" if not line or line[0] == " " else "e" for line in lines).split("e")
            assert max(map(len, runs)) <= CONTEXT + 1, f"{patch.name}:\n{hunk}"
            assert len(runs[0]) <= CONTEXT, f"{patch.name}:\n{hunk}"
            assert len(runs[-1]) <= CONTEXT, f"{patch.name}:\n{hunk}"
