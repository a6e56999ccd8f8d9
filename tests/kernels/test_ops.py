# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Each op of the kernel package against the NumPy reference, on real engines.

The reference sums in float64 without rounding, so an op may differ by the rounding of its output
and by float32 sums: at most :data:`BF16_ERROR` or :data:`FLOAT32_ERROR` in relative L2 norm.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from op_graphs import OpGraphs

from reference import moe, panels
from reference.mxfp4 import round_bf16, value_table

Array = npt.NDArray[Any]

BF16_ERROR = 3e-3
"""Rounding to eight bits of mantissa is off by 2^-9 / sqrt(3) on average, and by 2^-9 at most."""

FLOAT32_ERROR = 1e-5


ORDERS = pytest.mark.parametrize("in_panels", [False, True], ids=["rows", "panels"])
"""The checkpoint's order of weights, and panels: on a GPU each has kernels of its own."""


class Stack(NamedTuple):
    """Random packed weights of one projection, with a bias."""

    blocks: Array
    scales: Array
    bias: Array

    def ordered(self, in_panels: bool) -> Stack:
        """The same weights, in panels if so."""
        if not in_panels:
            return self
        return Stack(*panels.to_panels(self.blocks, self.scales), self.bias)


def make_stack(
    rng: np.random.Generator,
    experts: int,
    features: int,
    depth: int,
    scales: tuple[int, int] = (116, 124),
) -> Stack:
    """Weights ``[experts, features, depth]`` with scale bytes from the closed range ``scales``."""
    return Stack(
        rng.integers(0, 256, (experts, features, depth // 2), dtype=np.uint8),
        rng.integers(*scales, (experts, features, depth // 32), dtype=np.uint8, endpoint=True),
        round_bf16(rng.standard_normal((experts, features)).astype(np.float32)),
    )


def random_bf16(rng: np.random.Generator, *shape: int) -> Array:
    """Normal numbers that BF16 holds."""
    return round_bf16(rng.standard_normal(shape).astype(np.float32))


def relative_error(actual: Array, expected: Array) -> float:
    """``|actual - expected| / |expected|``; infinite where shapes differ or something is a NaN."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    norm = float(np.linalg.norm(expected))
    error = float(np.linalg.norm(actual.astype(np.float64) - expected))
    return error / norm if norm else error


def starts_of(counts: list[int]) -> Array:
    """Where each group's rows start, and the end."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.uint32)


# Every stack shape and every number of groups compiles a graph, which takes far longer than running
# it, so the tests share them: experts, features (multiples of 8) and depths (multiples of 32), none
# a whole number of tiles. The large one fits panels.
SMALL, LARGE = (5, 40, 96), (3, 144, 416)
GROUPS = 4


@pytest.mark.parametrize("shape", [(5, 48, 96), LARGE], ids=str)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_to_panels(ops: OpGraphs, shape: tuple[int, int, int], seed: int) -> None:
    stack = make_stack(np.random.default_rng(seed), *shape, scales=(0, 255))
    actual = ops.to_panels(stack.blocks, stack.scales)
    expected = panels.to_panels(stack.blocks, stack.scales)
    for got, want in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("shape", "in_panels"),
    [(SMALL, False), (LARGE, False), (LARGE, True)],
    ids=["small", "large", "large in panels"],
)
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_matmul(
    ops: OpGraphs, shape: tuple[int, int, int], in_panels: bool, data: st.DataObject
) -> None:
    experts, features, depth = shape
    counts = data.draw(
        st.lists(st.sampled_from([0, 0, 1, 2, 7, 8, 9, 33, 70]), min_size=GROUPS, max_size=GROUPS)
    )
    ids = data.draw(
        st.lists(st.integers(-1, experts - 1), min_size=GROUPS, max_size=GROUPS), label="ids"
    )
    low = data.draw(st.integers(100, 140), label="lowest scale")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    stack = make_stack(rng, experts, features, depth, (low, low + 8))
    starts = starts_of(counts)
    activations = random_bf16(rng, int(starts[-1]), depth)
    expert_ids = np.array(ids, dtype=np.int32)
    weights = stack.ordered(in_panels)[:2]
    actual = ops.matmul(activations, *weights, starts, expert_ids, in_panels=in_panels)

    owned = np.repeat(expert_ids, counts) >= 0
    # The reference knows no "no expert": give those groups any, and leave their rows out.
    expected = moe.matmul(
        activations, stack.blocks, stack.scales, starts, np.maximum(expert_ids, 0)
    )
    assert relative_error(actual[owned], expected[owned]) <= BF16_ERROR
    assert not actual[~owned].any()


@ORDERS
def test_rows_outside_all_groups_are_zero(ops: OpGraphs, in_panels: bool) -> None:
    rng = np.random.default_rng(1)
    stack = make_stack(rng, *LARGE)
    activations = random_bf16(rng, 90, LARGE[2])
    starts = np.array([10, 13, 13, 17, 20], dtype=np.uint32)
    ids = np.array([1, 0, 2, 1], dtype=np.int32)
    weights = stack.ordered(in_panels)[:2]
    actual = ops.matmul(activations, *weights, starts, ids, in_panels=in_panels)
    expected = moe.matmul(activations, stack.blocks, stack.scales, starts, ids)
    assert relative_error(actual[10:20], expected[10:20]) <= BF16_ERROR
    assert not actual[:10].any()
    assert not actual[20:].any()


@ORDERS
def test_every_value_is_exact(ops: OpGraphs, in_panels: bool) -> None:
    """Every code times every scale byte, against the table checked with the specification."""
    feature = np.arange(256 * 16)
    scale, code = feature // 16, feature % 16
    # The element lies at varying places of varying blocks, zeros elsewhere.
    position = feature % 29 * 9
    blocks = np.zeros((1, feature.size, 128), dtype=np.uint8)
    blocks[0, feature, position // 2] = np.where(position % 2, code << 4, code)
    scales = np.full((1, feature.size, 8), 127, dtype=np.uint8)
    scales[0, feature, position // 32] = scale
    stack = Stack(blocks, scales, np.zeros((1, feature.size), dtype=np.float32))
    actual = ops.matmul(
        np.ones((1, 256), dtype=np.float32),
        *stack.ordered(in_panels)[:2],
        np.array([0, 1], dtype=np.uint32),
        np.array([0], dtype=np.int32),
        in_panels=in_panels,
    )
    with np.errstate(over="ignore"):
        expected = round_bf16(value_table()).reshape(1, -1)
    np.testing.assert_array_equal(actual, expected)
    assert np.isinf(actual).any()
    assert np.isnan(actual).any()


@ORDERS
def test_a_nan_scale_stays_in_its_rows(ops: OpGraphs, in_panels: bool) -> None:
    rng = np.random.default_rng(2)
    stack = make_stack(rng, *LARGE)
    stack.scales[1, 5, 2] = 255
    activations = random_bf16(rng, 9, LARGE[2])
    actual = ops.matmul(
        activations,
        *stack.ordered(in_panels)[:2],
        np.array([0, 4, 9, 9, 9], dtype=np.uint32),
        np.array([0, 1, 2, 0], dtype=np.int32),
        in_panels=in_panels,
    )
    poisoned = np.zeros((9, LARGE[1]), dtype=bool)
    poisoned[4:, 5] = True
    np.testing.assert_array_equal(np.isnan(actual), poisoned)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.integers(0, 300),
    concentration=st.sampled_from([0.05, 1.0, 100.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_route(ops: OpGraphs, tokens: int, concentration: float, seed: int) -> None:
    experts, top_k = 37, 3
    rng = np.random.default_rng(seed)
    share = rng.dirichlet([concentration] * experts)
    ids = rng.choice(experts, (tokens, top_k), p=share).astype(np.int32)
    for actual, expected in zip(ops.route(ids, experts), moe.route(ids, experts), strict=True):
        np.testing.assert_array_equal(actual, expected)


@settings(deadline=None, max_examples=30)
@given(
    tokens=st.integers(0, 300),
    levels=st.sampled_from([3, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_select(ops: OpGraphs, tokens: int, levels: int, seed: int) -> None:
    experts, top_k = 37, 3
    rng = np.random.default_rng(seed)
    # Few levels, so that many logits are equal.
    logits = round_bf16(rng.integers(-levels, levels + 1, (tokens, experts)) / 100)
    weights, *tables = ops.select(logits, top_k=top_k)
    expected = moe.choose_experts(logits, top_k)
    np.testing.assert_allclose(weights, expected.weights, rtol=1e-5)
    for actual, table in zip(tables, moe.route(expected.ids, experts), strict=True):
        np.testing.assert_array_equal(actual, table)


def test_select_finds_experts_among_logits_that_are_no_numbers(ops: OpGraphs) -> None:
    logits = np.full((2, 5), np.nan, np.float32)
    logits[1] = -np.inf
    _, _, starts, _ = ops.select(logits, top_k=2)
    # Equal logits: the first two experts of either token.
    assert starts.tolist() == [0, 2, 4, 4, 4, 4]


HIDDEN, WIDTH, EXPERTS, TOP_K = 288, 352, 6, 2


class Routed(NamedTuple):
    """Tokens with a routing of theirs."""

    hidden: Array
    routing: moe.Routing
    router_weights: Array


def make_routed(rng: np.random.Generator, tokens: int, favourites: int) -> Routed:
    """Tokens that choose among the first ``favourites`` experts."""
    chosen = [rng.permutation(favourites)[:TOP_K] for _ in range(tokens)]
    ids = np.array(chosen, dtype=np.int32).reshape(tokens, TOP_K)
    return Routed(
        random_bf16(rng, tokens, HIDDEN),
        moe.route(ids, EXPERTS),
        rng.random((tokens, TOP_K), dtype=np.float32),
    )


ROUTINGS = st.tuples(st.sampled_from([0, 1, 3, 17, 90]), st.integers(TOP_K, EXPERTS))


@ORDERS
@settings(deadline=None, max_examples=20)
@given(routing=ROUTINGS, seed=st.integers(0, 2**32 - 1))
def test_gate_up_swiglu(
    ops: OpGraphs, in_panels: bool, routing: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    routed = make_routed(rng, *routing)
    # Scales up to 2^-3 let gates and ups pass the clamps on both sides.
    stack = make_stack(rng, EXPERTS, 2 * WIDTH, HIDDEN, (118, 124))
    inputs = (routed.hidden, routed.routing.token_expert_order)
    tables = routed.routing[1:]
    actual = ops.gate_up_swiglu(
        *inputs, *stack.ordered(in_panels), *tables, top_k=TOP_K, in_panels=in_panels
    )
    expected = moe.gate_up_swiglu(*inputs, *stack, *tables, top_k=TOP_K)
    assert relative_error(actual, expected) <= BF16_ERROR


@ORDERS
@settings(deadline=None, max_examples=20)
@given(routing=ROUTINGS, seed=st.integers(0, 2**32 - 1))
def test_down(ops: OpGraphs, in_panels: bool, routing: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    routed = make_routed(rng, *routing)
    stack = make_stack(rng, EXPERTS, HIDDEN, WIDTH)
    gated = random_bf16(rng, routed.router_weights.size, WIDTH)
    inputs = (gated, routed.routing.token_expert_order)
    tables: tuple[Array, ...] = (routed.router_weights, *routed.routing[1:])
    actual = ops.down(*inputs, *stack.ordered(in_panels), *tables, in_panels=in_panels)
    assert relative_error(actual, moe.down(*inputs, *stack, *tables)) <= BF16_ERROR


@settings(deadline=None, max_examples=10)
@given(routing=ROUTINGS, seed=st.integers(0, 2**32 - 1))
def test_both_orders_give_the_same_on_the_cpu(
    ops: OpGraphs, routing: tuple[int, int], seed: int
) -> None:
    if ops.is_gpu:
        pytest.skip("its kernels for the two orders add up in different orders")
    rng = np.random.default_rng(seed)
    routed = make_routed(rng, *routing)
    order, *tables = routed.routing
    gated = random_bf16(rng, routed.router_weights.size, WIDTH)
    gate_up = make_stack(rng, EXPERTS, 2 * WIDTH, HIDDEN)
    down = make_stack(rng, EXPERTS, HIDDEN, WIDTH)
    plain = make_stack(rng, *LARGE)
    starts, ids = starts_of([3, 0, 9, 8]), np.array([2, 0, 1, -1], dtype=np.int32)
    activations = random_bf16(rng, 20, LARGE[2])

    def results(in_panels: bool) -> tuple[Array, ...]:
        w0, w1, w2 = (stack.ordered(in_panels) for stack in (plain, gate_up, down))
        return (
            ops.matmul(activations, *w0[:2], starts, ids, in_panels=in_panels),
            ops.gate_up_swiglu(
                routed.hidden, order, *w1, *tables, top_k=TOP_K, in_panels=in_panels
            ),
            ops.down(gated, order, *w2, routed.router_weights, *tables, in_panels=in_panels),
        )

    for in_rows, in_panels in zip(results(False), results(True), strict=True):
        np.testing.assert_array_equal(in_panels, in_rows)


@settings(deadline=None, max_examples=20)
@given(tokens=st.integers(0, 40), seed=st.integers(0, 2**32 - 1))
def test_combine(ops: OpGraphs, tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weighted = random_bf16(rng, tokens * TOP_K, HIDDEN)
    actual = ops.combine(weighted, top_k=TOP_K)
    assert relative_error(actual, moe.combine(weighted, TOP_K)) <= BF16_ERROR


@ORDERS
@settings(deadline=None, max_examples=20)
@given(tokens=st.sampled_from([0, 1, 2, 3, 60]), seed=st.integers(0, 2**32 - 1))
def test_experts(ops: OpGraphs, in_panels: bool, tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hidden, logits = random_bf16(rng, tokens, HIDDEN), random_bf16(rng, tokens, EXPERTS)
    gate_up = make_stack(rng, EXPERTS, 2 * WIDTH, HIDDEN, (118, 124))
    down = make_stack(rng, EXPERTS, HIDDEN, WIDTH)
    actual = ops.experts(
        hidden,
        logits,
        gate_up.ordered(in_panels),
        down.ordered(in_panels),
        top_k=TOP_K,
        in_panels=in_panels,
    )
    choice = moe.choose_experts(logits, TOP_K)
    order, *tables = moe.route(choice.ids, EXPERTS)
    gated = moe.gate_up_swiglu(hidden, order, *gate_up, *tables, top_k=TOP_K)
    weighted = moe.down(gated, order, *down, choice.weights, *tables)
    # Rounded up to three times on the way: gated, weighted, and the sum.
    assert relative_error(actual, moe.combine(weighted, TOP_K)) <= 2 * BF16_ERROR


@ORDERS
def test_results_are_the_same_in_every_run(ops: OpGraphs, in_panels: bool) -> None:
    rng = np.random.default_rng(3)
    routed = make_routed(rng, 50, 3)
    stack = make_stack(rng, EXPERTS, HIDDEN, WIDTH)
    operands = (
        random_bf16(rng, routed.router_weights.size, WIDTH),
        routed.routing.token_expert_order,
        *stack.ordered(in_panels),
        routed.router_weights,
        *routed.routing[1:],
    )
    first = ops.down(*operands, in_panels=in_panels)
    for _ in range(5):
        np.testing.assert_array_equal(ops.down(*operands, in_panels=in_panels), first)


def test_an_expert_that_does_not_exist_is_refused_on_the_cpu(ops: OpGraphs) -> None:
    if ops.is_gpu:
        pytest.skip("a kernel on a GPU cannot raise")
    rng = np.random.default_rng(4)
    stack = make_stack(rng, *SMALL)
    with pytest.raises(ValueError, match=r"expert_ids\[1\] is 5.*experts 0 to 4"):
        ops.matmul(
            random_bf16(rng, 1, SMALL[2]),
            stack.blocks,
            stack.scales,
            np.array([0, 1, 1, 1, 1], dtype=np.uint32),
            np.array([0, 5, 0, 0], dtype=np.int32),
        )
    with pytest.raises(ValueError, match=r"topk_ids holds expert 40 at slot 5.*experts 0 to 36"):
        ops.route(np.array([[0, 1, 2], [3, 4, 40]], dtype=np.int32), 37)
