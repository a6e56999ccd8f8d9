# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The routings that every timed implementation gets; ``routings.mojo`` draws the same ones."""

from __future__ import annotations

from collections.abc import Iterator

from moe_layer.shapes import TOP_K, routing_count

_MASK = (1 << 64) - 1


def draw_routings(experts: int, tokens: int) -> list[list[list[int]]]:
    """Uniform random choices: ``TOP_K`` different experts of each token of each routing."""
    draws = _draws(experts, tokens)
    return [[_token(draws) for _ in range(tokens)] for _ in range(routing_count(tokens))]


def active_experts(routings: list[list[list[int]]]) -> float:
    """Experts that got a token, on average over the routings."""
    used = (len({expert for token in routing for expert in token}) for routing in routings)
    return sum(used) / len(routings)


def _token(draws: Iterator[int]) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < TOP_K:
        expert = next(draws)
        if expert not in chosen:
            chosen.append(expert)
    return chosen


def _draws(experts: int, tokens: int) -> Iterator[int]:
    """SplitMix64, scaled to the experts."""
    state = experts << 32 | tokens
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        x = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _MASK
        x ^= x >> 31
        yield (x >> 32) * experts >> 32
