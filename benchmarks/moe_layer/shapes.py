# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The sizes that are measured: those of gpt-oss's MoE layers."""

from __future__ import annotations

HIDDEN = 2880
"""Hidden size, and the width of an expert."""

TOP_K = 4
"""Experts that a token is routed to."""

EXPERTS = (128, 32)
"""Experts of a layer of gpt-oss-120b and of gpt-oss-20b."""

TOKENS = tuple(1 << power for power in range(14))
"""Tokens of a step: 1 to 8192."""

REPEATS = 11
"""Times that a figure, their median, is taken over."""


def routing_count(tokens: int) -> int:
    """Number of routings that one figure is taken over, as in ``routings.mojo``."""
    return 16 if tokens <= 512 else 4
