# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How a peer is timed: one CUDA graph of a layer for each routing, replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from statistics import median

import torch

from moe_layer.results import Measurement
from moe_layer.routings import active_experts, draw_routings
from moe_layer.shapes import REPEATS, TOKENS

Layers = Callable[[], None]
"""Runs the layer once for each routing."""


def time_peer(experts: int, prepare: Callable[[list[torch.Tensor]], Layers]) -> None:
    """Times a peer for every number of tokens, and prints a JSON object for each.

    Args:
        experts: Experts of the layer.
        prepare: Does what comes before the layer for each routing, int32 ``[tokens, TOP_K]``.
    """
    for tokens in TOKENS:
        routings = draw_routings(experts, tokens)
        choices = [torch.tensor(one, dtype=torch.int32, device="cuda") for one in routings]
        us = median_us(prepare(choices)) / len(routings)
        measurement = Measurement(experts, tokens, active_experts(routings), us)
        print(json.dumps(asdict(measurement)), flush=True)


def median_us(layers: Layers) -> float:
    """Microseconds that all of them take, the median over the graph's replays."""
    for _ in range(2):
        layers()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layers()
    for _ in range(3):
        graph.replay()
    times: list[float] = []
    for _ in range(REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return median(times)
