# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures the two rates that the limit is made of; prints one JSON object.

usage: python -m moe_layer.rates
"""

from __future__ import annotations

import json
from collections.abc import Callable
from statistics import median

import torch
import triton

from moe_layer.shapes import HIDDEN, REPEATS, TOKENS, TOP_K

COPY_BYTES = 4 << 30
CALLS = 10


def main() -> None:
    """Print the rates and the versions of what measured them."""
    report = {
        "copy_tb_per_s": round(copy_rate() / 1e12, 4),
        "matmul_tflop_per_s": round(matmul_rate() / 1e12, 2),
        "torch": torch.__version__,
        "triton": triton.__version__,
    }
    print(json.dumps(report), flush=True)


def copy_rate() -> float:
    """Bytes a second, read and written, of a copy within device memory."""
    source = torch.randint(0, 256, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _seconds(lambda: target.copy_(source))


def matmul_rate() -> float:
    """Operations a second of gpt-oss's gate/up product, in BF16, for the most tokens."""
    rows = TOKENS[-1] * TOP_K
    activations = torch.randn(rows, HIDDEN, dtype=torch.bfloat16, device="cuda")
    weights = torch.randn(2 * HIDDEN, HIDDEN, dtype=torch.bfloat16, device="cuda")
    output = torch.empty(rows, 2 * HIDDEN, dtype=torch.bfloat16, device="cuda")
    seconds = _seconds(lambda: torch.mm(activations, weights.T, out=output))
    return 2 * rows * HIDDEN * 2 * HIDDEN / seconds


def _seconds(work: Callable[[], object]) -> float:
    """Seconds a call, the median over repeats of some calls back to back."""
    work()
    times: list[float] = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(CALLS):
            work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / CALLS)
    return median(times)


if __name__ == "__main__":
    main()
