# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The logits of the pipeline, prefilled and decoded, against transformers in float32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from max_command import run
from stored_logits import STEPS, Logits

pytest_plugins = ("gpu_checkpoint",)
pytestmark = pytest.mark.gpu

COLLECT = Path(__file__).with_name("max_logits.py")
# How much worse than transformers' own BF16 run the pipeline may be.
FACTOR = 1.25


def test_logits_are_as_good_as_those_of_transformers_in_bf16(
    checkpoint: Path, graph_options: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("torch", reason="the float32 reference runs on PyTorch")
    from logits_report import compare

    path = tmp_path / "logits.npz"
    run([sys.executable, str(COLLECT), str(checkpoint), str(path), *graph_options])
    logits = Logits.load(path)
    assert np.isfinite(logits.prefill).all()
    assert np.isfinite(logits.decode).all()
    report = compare(checkpoint, logits, "cuda")
    print(report)
    bf16 = report.transformers_bf16
    assert report.positions >= STEPS
    for found in (report.prefill, report.decode):
        assert found.overall <= FACTOR * bf16.overall
        # A single position that is off, say at the edge of the window, drowns in the overall error.
        assert found.worst_position <= 2 * FACTOR * bf16.worst_position
    # Two runs with independent errors differ by up to the root of two times the error of one.
    agreement = report.decode_against_prefill
    assert agreement.overall <= 2**0.5 * FACTOR * bf16.overall
    assert agreement.worst_position <= 2**0.5 * 2 * FACTOR * bf16.worst_position
