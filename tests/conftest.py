# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What every suite shares: the repository's root, and skipping GPU tests where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from hopper import why_no_hopper

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of this repository."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests marked ``gpu`` where there is no Hopper GPU, and says why."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    reason = why_no_hopper() if marked else None
    if reason is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"needs a Hopper GPU: {reason}"))
