# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""scripts/try_upstream.py: what fits another release, and what does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from patchset_tools import commit_all, make_checkout, make_patch, make_patchset

from patchset.changes import PatchSet
from patchset.checkout import Checkout
from patchset.series import read_series
from patchset.trial import try_patchset

UPSTREAM = {"max/python/max/a.py": "a = 1\n", "max/python/max/b.py": "b = 1\n"}


def try_upstream(repository: Path, release: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "scripts/try_upstream.py"), str(release)]
    return subprocess.run(command, text=True, capture_output=True, check=False)


def test_everything_fits_the_pinned_release(
    repository: Path, patchset: PatchSet, checkout: Path
) -> None:
    trials = try_patchset(patchset, Checkout(checkout).committed)
    assert [trial.name for trial in trials] == [
        *(patch.name for patch in read_series(patchset.patches)),
        *sorted(patchset.pin.replaced_files),
    ]
    assert not [trial for trial in trials if trial.problem]
    assert try_upstream(repository, checkout).returncode == 0


def test_what_does_not_fit_is_named(repository: Path, patchset: PatchSet, checkout: Path) -> None:
    attention = "max/python/max/pipelines/architectures/gpt_oss/layers/attention.py"
    adapters = "max/python/max/pipelines/architectures/gpt_oss/weight_adapters.py"
    (checkout / attention).write_text("other = 1\n")
    (checkout / adapters).write_text("other = 1\n")
    commit_all(checkout)
    problems = {
        trial.name: trial.problem
        for trial in try_patchset(patchset, Checkout(checkout).committed)
        if trial.problem
    }
    (patch,) = (name for name in problems if name.endswith(".patch"))
    assert attention in (problems.pop(patch) or "")
    assert problems == {
        adapters: f"differs there from MAX {patchset.pin.max_version}'s, which ours replaces"
    }
    result = try_upstream(repository, checkout)
    assert result.returncode == 1
    assert patch in result.stdout


def test_each_patch_is_tried_alone(tmp_path: Path) -> None:
    """A patch that needs one before it does not fit alone, which a maintainer wants to know."""
    once = {**UPSTREAM, "max/python/max/a.py": "a = 2\n"}
    twice = {**UPSTREAM, "max/python/max/a.py": "a = 3\n"}
    patches = {
        "1.patch": make_patch(tmp_path / "p1", UPSTREAM, once),
        "2.patch": make_patch(tmp_path / "p2", once, twice),
    }
    overlay = {"max/python/max/b.py": "ours = 1\n", "max/python/max/c.py": "ours = 1\n"}
    patchset = make_patchset(tmp_path / "set", overlay, patches)
    checkout = make_checkout(tmp_path / "checkout", UPSTREAM)
    first, second, overlaid = try_patchset(patchset, Checkout(checkout).committed)
    assert first.problem is None
    assert second.name == "2.patch"
    assert "a.py:1" in (second.problem or "")
    assert overlaid.name == "max/python/max/b.py"
    assert "not meant to replace it" in (overlaid.problem or "")


def test_version_that_is_not_published_is_refused(repository: Path) -> None:
    result = try_upstream(repository, "0.0.1")
    assert result.returncode == 2
    assert "pip cannot download max 0.0.1" in result.stderr
