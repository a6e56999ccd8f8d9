# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Results as a GPU host would write them, with made-up times."""

from __future__ import annotations

from moe_layer.limits import Rates
from moe_layer.results import OURS, PEERS, Measurement, Results
from moe_layer.shapes import EXPERTS, TOKENS

RATES = Rates(copy_tb_per_s=4.25, matmul_tflop_per_s=756)
VERSIONS = {"max": "26.7.0", "mojo": "1.2.0", "driver": "580.1"}


def times(experts: int, factor: float) -> list[Measurement]:
    """A time for each number of tokens."""
    return [
        Measurement(experts, tokens, float(min(experts, 4 * tokens)), factor * (20 + tokens))
        for tokens in TOKENS
    ]


def sample_results(ours: bool = True, peers: bool = True) -> Results:
    """Results of one run, of ours, the peers or both."""
    results = Results("NVIDIA H200", "2026-11-23", dict(VERSIONS), RATES)
    for experts in EXPERTS:
        if ours:
            results.layer.add(OURS, times(experts, 1))
            results.matmul.add(OURS, times(experts, 0.5))
        if peers:
            for factor, peer in enumerate(PEERS, start=2):
                results.layer.add(peer, times(experts, factor))
    return results
