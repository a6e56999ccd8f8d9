# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the hardware allows: the larger of reading the active experts and multiplying."""

from __future__ import annotations

from dataclasses import dataclass

from moe_layer.shapes import HIDDEN, TOP_K

MATRIX = HIDDEN * HIDDEN
"""Elements of one of an expert's three matrices: gate, up and down."""

LAYER_MATRICES = 3
MATMUL_MATRICES = 2
"""The plain matmul is timed with gate and up."""


@dataclass(frozen=True)
class Rates:
    """The two rates of a device that a limit is made of."""

    copy_tb_per_s: float
    """Bytes read and written by a large copy from device memory to device memory."""
    matmul_tflop_per_s: float
    """BF16 matrix product of gpt-oss's gate/up shape, in cuBLAS."""

    def limit_us(self, active_experts: float, tokens: int, matrices: int) -> float:
        """The least time for some matrices of the active experts, in microseconds."""
        return max(
            packed_bytes(active_experts, matrices) / self.copy_tb_per_s / 1e6,
            operations(tokens, matrices) / self.matmul_tflop_per_s / 1e6,
        )


def packed_bytes(active_experts: float, matrices: int) -> float:
    """Bytes of packed weights: 4 bits an element, and a byte of scale for every 32."""
    return active_experts * matrices * MATRIX / 2 * 17 / 16


def operations(tokens: int, matrices: int) -> int:
    """Multiplications and additions of all tokens at all of their experts."""
    return 2 * tokens * TOP_K * matrices * MATRIX
