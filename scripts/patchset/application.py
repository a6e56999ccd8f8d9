# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Applying the patch set to a checkout, and taking it back."""

from __future__ import annotations

from enum import Enum

from patchset.changes import Change, PatchSet, plan
from patchset.checkout import Checkout
from patchset.errors import PatchsetError


class Outcome(Enum):
    """What there was to do to a checkout."""

    CHANGED = "changed"
    """The files were changed, or would be."""
    NOTHING_TO_DO = "nothing to do"
    """The checkout is already as asked."""


def apply(patchset: PatchSet, checkout: Checkout, check: bool) -> Outcome:
    """Puts the overlay and the patches on the checkout, all or nothing.

    Args:
        patchset: The patch set.
        checkout: A checkout of the pinned version without uncommitted changes.
        check: Only find out; change nothing.

    Raises:
        PatchsetError: If the checkout is of another version, has uncommitted changes, or a
            patch or overlay file does not fit. Nothing is changed then.
    """
    checkout.check_version(patchset.pin.max_version)
    changes = _plan(patchset, checkout)
    applied = [change for change in changes if checkout.current(change.path) == change.after]
    if len(applied) == len(changes):
        return Outcome.NOTHING_TO_DO
    _refuse_foreign_changes(checkout, changes)
    if applied:
        raise PatchsetError(
            f"the patch set is applied in part ({applied[0].path} is as it should be): "
            "run again with --reverse first."
        )
    if not check:
        checkout.write({change.path: change.after for change in changes})
    return Outcome.CHANGED


def reverse(patchset: PatchSet, checkout: Checkout, check: bool) -> Outcome:
    """Takes the patch set off the checkout: its files become those of the current commit.

    A checkout on which an apply was cut short is put right as well.

    Args:
        patchset: The patch set.
        checkout: A checkout of the pinned version.
        check: Only find out; change nothing.

    Raises:
        PatchsetError: If the checkout is of another version, or a file of the patch set was
            edited or staged since it was applied. Nothing is changed then.
    """
    checkout.check_version(patchset.pin.max_version)
    changes = _plan(patchset, checkout)
    staged = checkout.staged([change.path for change in changes])
    if staged:
        raise PatchsetError(f"{staged[0]} is staged: run 'git restore --staged' on it first.")
    pending: dict[str, bytes | None] = {}
    for change in changes:
        current = checkout.current(change.path)
        if current not in (change.before, change.after):
            raise PatchsetError(
                f"{change.path} was edited after the patch set was applied: "
                "keep the edit elsewhere and put the file back first."
            )
        if current != change.before:
            pending[change.path] = change.before
    if not pending:
        return Outcome.NOTHING_TO_DO
    if not check:
        checkout.write(pending)
    return Outcome.CHANGED


def _plan(patchset: PatchSet, checkout: Checkout) -> list[Change]:
    return plan(patchset, checkout.committed, lambda path: True)


def _refuse_foreign_changes(checkout: Checkout, changes: list[Change]) -> None:
    """Refuses a tree with uncommitted changes that are not the patch set's own.

    An untracked file counts where the patch set has a file of that name.
    """
    after = {change.path: change.after for change in changes}
    for path in checkout.modified():
        if path not in after or checkout.current(path) != after[path]:
            raise PatchsetError(f"{path} has uncommitted changes: commit or stash them first.")
    for change in changes:
        if checkout.current(change.path) not in (change.before, change.after):
            raise PatchsetError(f"{change.path} is in the way: move it elsewhere first.")
