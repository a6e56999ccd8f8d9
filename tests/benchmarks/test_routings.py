# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Ours and the peers get the same routings."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import mojo_build
from moe_layer.bundle import BENCHMARKS
from moe_layer.routings import active_experts, draw_routings
from moe_layer.shapes import EXPERTS


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The draws of our program, on the CPU."""
    program = tmp_path_factory.mktemp("routings") / "print_routings"
    source = Path(__file__).with_name("print_routings.mojo")
    mojo_build.build(source, BENCHMARKS, program)
    return program


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("tokens", [1, 3, 1024])
def test_both_languages_draw_the_same(program: Path, experts: int, tokens: int) -> None:
    output = subprocess.check_output([program, str(experts), str(tokens)], text=True)
    routings = draw_routings(experts, tokens)
    flat = [expert for routing in routings for token in routing for expert in token]
    assert [int(line) for line in output.splitlines()] == flat


def test_draws_are_uniform_and_distinct() -> None:
    routings = draw_routings(32, 512)
    counts = [0] * 32
    for routing in routings:
        for token in routing:
            assert len(set(token)) == 4
            for expert in token:
                counts[expert] += 1
    # 1024 are expected; six standard deviations are 180.
    assert all(abs(count - 1024) < 180 for count in counts)
    assert active_experts(routings) == 32
