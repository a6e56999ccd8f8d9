# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The hardware's limit, against values worked out by hand."""

from __future__ import annotations

import pytest
from sample_results import RATES

from moe_layer.limits import LAYER_MATRICES, MATMUL_MATRICES, packed_bytes


def test_packed_bytes_of_an_expert() -> None:
    # Three matrices of 8,294,400 elements at 4.25 bits.
    assert packed_bytes(1, LAYER_MATRICES) == 13_219_200


@pytest.mark.parametrize(
    ("active", "tokens", "expected"),
    [
        (4, 1, 12),  # 52.9 MB at 4.25 TB/s
        (128, 256, 398),  # 1692 MB, where the operations take 67 us
        (32, 1024, 270),  # 203.8 GFLOP at 756 TFLOP/s, where the bytes take 100 us
        (128, 8192, 2157),
        (32, 8192, 2157),
    ],
)
def test_layer_limit(active: float, tokens: int, expected: int) -> None:
    assert round(RATES.limit_us(active, tokens, LAYER_MATRICES)) == expected


@pytest.mark.parametrize(("active", "tokens"), [(4, 1), (128, 8192)])
def test_matmul_has_two_thirds_of_the_layer(active: float, tokens: int) -> None:
    layer = RATES.limit_us(active, tokens, LAYER_MATRICES)
    assert RATES.limit_us(active, tokens, MATMUL_MATRICES) == pytest.approx(layer * 2 / 3)
