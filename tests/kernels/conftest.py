# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The ops on MAX's CPU engine everywhere, and on a GPU where there is one."""

from __future__ import annotations

import pytest
from max.driver import CPU, Accelerator
from op_graphs import OpGraphs


@pytest.fixture(
    scope="session", params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)], ids=str
)
def ops(request: pytest.FixtureRequest) -> OpGraphs:
    """The kernel packages' ops on one device."""
    return OpGraphs(CPU() if request.param == "cpu" else Accelerator())
