# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the graph ops refuse while a graph is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from max.nn.mxfp4_moe import (
    ExpertStack,
    fits_panels,
    kernel_package_path,
    mxfp4_moe_combine,
    mxfp4_moe_down,
    mxfp4_moe_experts,
    mxfp4_moe_gate_up_swiglu,
    mxfp4_moe_matmul,
    mxfp4_moe_route,
    mxfp4_moe_select,
    mxfp4_moe_to_panels,
)

EXPERTS, HIDDEN, WIDTH, TOKENS, TOP_K = 4, 64, 32, 3, 2
ROWS = TOKENS * TOP_K

Spec = tuple[DType, list[int | str]]
Op = Callable[..., Any]

GROUPS: dict[str, Spec] = {
    "expert_start_indices": (DType.uint32, [EXPERTS + 1]),
    "expert_ids": (DType.int32, [EXPERTS]),
}
STACK: dict[str, Spec] = {
    "blocks": (DType.uint8, [EXPERTS, 2 * WIDTH, HIDDEN // 2]),
    "scales": (DType.uint8, [EXPERTS, 2 * WIDTH, HIDDEN // 32]),
}
ROUTE: dict[str, Spec] = {"topk_ids": (DType.int32, [TOKENS, TOP_K])}
MATMUL: dict[str, Spec] = {
    "activations": (DType.bfloat16, [ROWS, HIDDEN]),
    **STACK,
    **GROUPS,
}
GATE_UP: dict[str, Spec] = {
    "hidden": (DType.bfloat16, [TOKENS, HIDDEN]),
    "token_expert_order": (DType.uint32, [ROWS]),
    **STACK,
    "bias": (DType.bfloat16, [EXPERTS, 2 * WIDTH]),
    **GROUPS,
}
DOWN: dict[str, Spec] = {
    "gated": (DType.bfloat16, [ROWS, WIDTH]),
    "token_expert_order": (DType.uint32, [ROWS]),
    "blocks": (DType.uint8, [EXPERTS, HIDDEN, WIDTH // 2]),
    "scales": (DType.uint8, [EXPERTS, HIDDEN, WIDTH // 32]),
    "bias": (DType.bfloat16, [EXPERTS, HIDDEN]),
    "router_weights": (DType.float32, [TOKENS, TOP_K]),
    **GROUPS,
}
SELECT: dict[str, Spec] = {"logits": (DType.bfloat16, [TOKENS, EXPERTS])}
COMBINE: dict[str, Spec] = {"weighted": (DType.bfloat16, [ROWS, HIDDEN])}
LAYER: dict[str, Spec] = {
    "hidden": (DType.bfloat16, [TOKENS, HIDDEN]),
    "logits": (DType.bfloat16, [TOKENS, EXPERTS]),
    **{f"gate_up_{name}": spec for name, spec in STACK.items()},
    "gate_up_bias": (DType.bfloat16, [EXPERTS, 2 * WIDTH]),
    **{f"down_{name}": DOWN[name] for name in ("blocks", "scales", "bias")},
}


def experts(
    hidden: TensorValue,
    logits: TensorValue,
    gate_up_blocks: TensorValue,
    gate_up_scales: TensorValue,
    gate_up_bias: TensorValue,
    down_blocks: TensorValue,
    down_scales: TensorValue,
    down_bias: TensorValue,
    **options: Any,
) -> TensorValue:
    """The op of a whole layer, with its stacks' tensors one by one."""
    gate_up = ExpertStack(gate_up_blocks, gate_up_scales, gate_up_bias)
    down = ExpertStack(down_blocks, down_scales, down_bias)
    return mxfp4_moe_experts(hidden, logits, gate_up, down, **options)


OPS: dict[str, tuple[Op, dict[str, Spec], dict[str, Any]]] = {
    "route": (mxfp4_moe_route, ROUTE, {"num_experts": EXPERTS}),
    "select": (mxfp4_moe_select, SELECT, {"top_k": TOP_K}),
    "to_panels": (mxfp4_moe_to_panels, STACK, {}),
    "matmul": (mxfp4_moe_matmul, MATMUL, {}),
    "gate_up_swiglu": (mxfp4_moe_gate_up_swiglu, GATE_UP, {"top_k": TOP_K}),
    "down": (mxfp4_moe_down, DOWN, {}),
    "combine": (mxfp4_moe_combine, COMBINE, {"top_k": TOP_K}),
    "experts": (experts, LAYER, {"top_k": TOP_K}),
}


def build(
    op: str,
    changes: dict[str, Spec] | None = None,
    *,
    elsewhere: str | None = None,
    **options: Any,
) -> list[TensorValue]:
    """Builds a graph of one op with some of its inputs changed, and returns its results."""
    function, specs, defaults = OPS[op]
    specs = specs | (changes or {})
    types = [
        TensorType(dtype, shape, DeviceRef.CPU(1 if name == elsewhere else 0))
        for name, (dtype, shape) in specs.items()
    ]
    with Graph(op, input_types=types, custom_extensions=[kernel_package_path()]) as graph:
        inputs = dict(zip(specs, (value.tensor for value in graph.inputs), strict=True))
        results = function(**inputs, **(defaults | options))
        return list(results) if isinstance(results, tuple) else [results]


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        (
            "route",
            [
                (DType.uint32, [ROWS]),
                (DType.uint32, [EXPERTS + 1]),
                (DType.int32, [EXPERTS]),
            ],
        ),
        (
            "select",
            [
                (DType.float32, [TOKENS, TOP_K]),
                (DType.uint32, [ROWS]),
                (DType.uint32, [EXPERTS + 1]),
                (DType.int32, [EXPERTS]),
            ],
        ),
        (
            "to_panels",
            [
                (DType.uint8, [EXPERTS, 2 * WIDTH, HIDDEN // 2]),
                (DType.uint8, [EXPERTS, 2 * WIDTH, HIDDEN // 32]),
            ],
        ),
        ("matmul", [(DType.bfloat16, [ROWS, 2 * WIDTH])]),
        ("gate_up_swiglu", [(DType.bfloat16, [ROWS, WIDTH])]),
        ("down", [(DType.bfloat16, [ROWS, HIDDEN])]),
        ("combine", [(DType.bfloat16, [TOKENS, HIDDEN])]),
        ("experts", [(DType.bfloat16, [TOKENS, HIDDEN])]),
    ],
)
def test_results(op: str, expected: list[tuple[DType, list[int]]]) -> None:
    results = build(op)
    assert [(result.dtype, [int(dim) for dim in result.shape]) for result in results] == expected


def test_symbolic_tokens_and_experts_are_accepted() -> None:
    (result,) = build(
        "matmul",
        {
            "activations": (DType.bfloat16, ["rows", HIDDEN]),
            "blocks": (DType.uint8, ["experts", 2 * WIDTH, HIDDEN // 2]),
            "scales": (DType.uint8, ["experts", 2 * WIDTH, HIDDEN // 32]),
            "expert_start_indices": (DType.uint32, ["bounds"]),
            "expert_ids": (DType.int32, ["groups"]),
        },
    )
    assert [str(dim) for dim in result.shape] == ["rows", str(2 * WIDTH)]


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in OPS[op][1]])
def test_another_dtype_is_refused(op: str, name: str) -> None:
    _, shape = OPS[op][1][name]
    with pytest.raises(ValueError, match=rf"mxfp4_moe_{op}: '{name}' is float64; it must be"):
        build(op, {name: (DType.float64, shape)})


@pytest.mark.parametrize(("op", "name"), [(op, name) for op in OPS for name in OPS[op][1]])
def test_another_rank_is_refused(op: str, name: str) -> None:
    dtype, shape = OPS[op][1][name]
    with pytest.raises(ValueError, match=rf"mxfp4_moe_{op}: '{name}' has shape .* rank"):
        build(op, {name: (dtype, [*shape, 1])})


@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op in OPS for name in list(OPS[op][1])[1:]]
)
def test_another_device_is_refused(op: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"mxfp4_moe_{op}: '{name}' is on cpu:1"):
        build(op, elsewhere=name)


MISMATCHES: list[tuple[str, str, Spec, str]] = [
    ("matmul", "activations", (DType.bfloat16, [ROWS, 96]), "'activations' is 96 .* 64"),
    ("matmul", "blocks", (DType.uint8, [EXPERTS, 64, 40]), "K = 80 .* multiple of 32"),
    ("matmul", "blocks", (DType.uint8, [EXPERTS, 64, 0]), "K = 0 .* multiple of 32"),
    ("matmul", "blocks", (DType.uint8, [EXPERTS, 60, 32]), "N = 60 .* multiple of 8"),
    ("matmul", "blocks", (DType.uint8, [EXPERTS, 0, 32]), "N = 0 .* multiple of 8"),
    ("matmul", "blocks", (DType.uint8, [0, 64, 32]), "holds no expert"),
    ("matmul", "blocks", (DType.uint8, [EXPERTS, "n", 32]), "'blocks' is the symbolic n"),
    ("matmul", "scales", (DType.uint8, [EXPERTS, 64, 4]), "'scales' is 4 .* 2, for 'blocks'"),
    ("matmul", "scales", (DType.uint8, [5, 64, 2]), "'scales' is 5 .* 4, for 'blocks'"),
    ("matmul", "scales", (DType.uint8, [EXPERTS, 32, 2]), "'scales' is 32 .* 64, for 'blocks'"),
    ("matmul", "expert_ids", (DType.int32, [EXPERTS + 1]), "one more than 'expert_ids'"),
    ("to_panels", "blocks", (DType.uint8, [EXPERTS, 64, 40]), "K = 80 .* multiple of 32"),
    ("to_panels", "blocks", (DType.uint8, [EXPERTS, 56, 32]), "'scales' is 64 .* 56"),
    ("to_panels", "scales", (DType.uint8, [EXPERTS, 64, 4]), "'scales' is 4 .* 2, for 'blocks'"),
    ("gate_up_swiglu", "hidden", (DType.bfloat16, [TOKENS, 32]), "'hidden' is 32 .* 64"),
    ("gate_up_swiglu", "token_expert_order", (DType.uint32, [5]), "'token_expert_order' is 5"),
    ("gate_up_swiglu", "bias", (DType.bfloat16, [EXPERTS, WIDTH]), "'bias' is 32 .* 64"),
    ("gate_up_swiglu", "bias", (DType.bfloat16, [3, 2 * WIDTH]), "'bias' is 3 .* 4"),
    ("down", "gated", (DType.bfloat16, [ROWS, 64]), "'gated' is 64 .* 32"),
    ("down", "bias", (DType.bfloat16, [EXPERTS, WIDTH]), "'bias' is 32 .* 64"),
    ("down", "token_expert_order", (DType.uint32, [5]), "'token_expert_order' is 5"),
    ("down", "router_weights", (DType.float32, [TOKENS, 3]), "'gated' is 6 .* 9"),
    ("experts", "hidden", (DType.bfloat16, [TOKENS, 32]), "'hidden' is 32 .* 64"),
    ("experts", "logits", (DType.bfloat16, [5, EXPERTS]), "'logits' is 5 .* 3"),
    ("experts", "logits", (DType.bfloat16, [TOKENS, 5]), "'logits' is 5 .* 4"),
    ("experts", "gate_up_scales", (DType.uint8, [EXPERTS, 64, 4]), "'gate_up_scales' is 4 .* 2"),
    ("experts", "gate_up_bias", (DType.bfloat16, [EXPERTS, 32]), "'gate_up_bias' is 32 .* 64"),
    ("experts", "down_bias", (DType.bfloat16, [3, HIDDEN]), "'down_bias' is 3 .* 4"),
]


@pytest.mark.parametrize(("op", "name", "spec", "message"), MISMATCHES)
def test_shapes_that_disagree_are_refused(op: str, name: str, spec: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=rf"mxfp4_moe_{op}: .*{message}"):
        build(op, {name: spec})


def test_rows_that_top_k_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'weighted' has 6 rows, .* top_k = 4"):
        build("combine", top_k=4)


def test_features_that_vectors_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'weighted' has 60 features, .* multiple of 8"):
        build("combine", {"weighted": (DType.bfloat16, [ROWS, 60])})


@pytest.mark.parametrize(
    ("op", "option"),
    [
        ("select", "top_k"),
        ("gate_up_swiglu", "top_k"),
        ("combine", "top_k"),
        ("experts", "top_k"),
        ("route", "num_experts"),
    ],
)
def test_counts_below_one_are_refused(op: str, option: str) -> None:
    zero: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=rf"mxfp4_moe_{op}: '{option}' is 0"):
        build(op, **zero)


@pytest.mark.parametrize("op", ["select", "experts"])
def test_more_choices_than_experts_are_refused(op: str) -> None:
    message = rf"mxfp4_moe_{op}: 'top_k' is {EXPERTS + 1}; .* {EXPERTS} "
    with pytest.raises(ValueError, match=message):
        build(op, top_k=EXPERTS + 1)


def test_projections_that_do_not_follow_each_other_are_refused() -> None:
    down: dict[str, Spec] = {
        "down_blocks": (DType.uint8, [EXPERTS, HIDDEN, 32]),
        "down_scales": (DType.uint8, [EXPERTS, HIDDEN, 2]),
    }
    with pytest.raises(ValueError, match=r"'gate_up_blocks' has 64 rows .* K = 64 codes"):
        build("experts", down)


def test_more_experts_than_a_key_can_hold_are_refused() -> None:
    with pytest.raises(ValueError, match=r"65537 experts a token; 65536 are the most"):
        build("select", {"logits": (DType.bfloat16, [TOKENS, 65537])})


def stack(rows: int, depth: int) -> dict[str, Spec]:
    """Blocks and scales of ``rows`` an expert, ``depth`` long."""
    return {
        "blocks": (DType.uint8, [EXPERTS, rows, depth // 2]),
        "scales": (DType.uint8, [EXPERTS, rows, depth // 32]),
    }


def test_rows_that_fill_no_panel_are_not_reordered() -> None:
    with pytest.raises(ValueError, match=r"mxfp4_moe_to_panels: .*N = 56 .* multiple of 16"):
        build("to_panels", stack(56, HIDDEN))


PANEL_SHAPES = [
    (16, 256, True),
    (5760, 2880, True),
    (48, 8192, True),
    (56, 256, False),
    (64, 224, False),
    (64, 8224, False),
]


@pytest.mark.parametrize(("rows", "depth", "fits"), PANEL_SHAPES)
@pytest.mark.parametrize("op", ["matmul", "gate_up_swiglu", "down"])
def test_panels_are_taken_where_they_fit(op: str, rows: int, depth: int, fits: bool) -> None:
    assert fits_panels(rows, depth) is fits
    first, (dtype, shape) = next(iter(OPS[op][1].items()))
    changes = stack(rows, depth) | {first: (dtype, [shape[0], depth])}
    if "bias" in OPS[op][1]:
        changes["bias"] = (DType.bfloat16, [EXPERTS, rows])
    build(op, changes)
    if fits:
        build(op, changes, in_panels=True)
        return
    message = rf"mxfp4_moe_{op}: 'blocks' .* N = {rows} .* K = {depth} .* in panels, N must be"
    with pytest.raises(ValueError, match=message):
        build(op, changes, in_panels=True)
