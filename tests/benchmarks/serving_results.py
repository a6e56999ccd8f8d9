# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Results of serving as a GPU host would write them, with made-up figures."""

from __future__ import annotations

from serving.results import BATCHES, Model, Results, Row, Run


def sample(model: Model) -> Results:
    """Results of one call, with and without device graphs."""
    results = Results("NVIDIA H200", "2026-11-23", {"max": "26.7.0", "driver": "580.1"}, 4.25)
    for device_graphs in (True, False):
        results.runs.append(
            Run(
                model,
                device_graphs,
                131072,
                79.6,
                0.99,
                13.8,
                41.5,
                {"spawn": 15.7, "compile": 1.5},
            )
        )
        results.rows += [
            Row(
                model,
                batch,
                device_graphs,
                decode_tokens_per_s=100.0 * batch,
                limit_tokens_per_s=200.0 * batch,
                ttft_ms={"1k": 30.0, "8k": 200.0},
                peak_device_gib=70.0,
                load_s=40.0,
                copy_s=30.0,
                compile_s=1.5,
            )
            for batch in BATCHES
        ]
    return results
