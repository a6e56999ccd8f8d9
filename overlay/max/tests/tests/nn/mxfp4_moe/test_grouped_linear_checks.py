# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the ``grouped_linear`` op refuses while a graph is built."""

from __future__ import annotations

import pytest
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from max.nn.dense_linear import grouped_linear, kernel_package_path

ROWS, EXPERTS, FEATURES, DEPTH = 3, 4, 40, 96

Spec = tuple[DType, list[int | str]]

OPERANDS: dict[str, Spec] = {
    "x": (DType.bfloat16, [ROWS, DEPTH]),
    "weight": (DType.bfloat16, [EXPERTS, FEATURES, DEPTH]),
    "expert_start_indices": (DType.uint32, [EXPERTS + 1]),
    "expert_ids": (DType.int32, [EXPERTS]),
}


def build(changes: dict[str, Spec] | None = None, *, elsewhere: str | None = None) -> TensorValue:
    """Builds a graph of the op with some of its operands changed, and returns the result."""
    types = [
        TensorType(dtype, shape, DeviceRef.CPU(1 if name == elsewhere else 0))
        for name, (dtype, shape) in (OPERANDS | (changes or {})).items()
    ]
    with Graph("layer", input_types=types, custom_extensions=[kernel_package_path()]) as graph:
        return grouped_linear(*(value.tensor for value in graph.inputs))


def test_result() -> None:
    result = build({"x": (DType.bfloat16, ["rows", DEPTH])})
    assert result.dtype == DType.bfloat16
    assert [str(dim) for dim in result.shape] == ["rows", str(FEATURES)]


@pytest.mark.parametrize("name", OPERANDS)
def test_another_dtype_is_refused(name: str) -> None:
    dtype, shape = OPERANDS[name]
    with pytest.raises(
        ValueError, match=f"grouped_linear: '{name}' is float32; it must be {dtype.name}"
    ):
        build({name: (DType.float32, shape)})


@pytest.mark.parametrize("name", OPERANDS)
def test_another_rank_is_refused(name: str) -> None:
    dtype, shape = OPERANDS[name]
    with pytest.raises(ValueError, match=rf"grouped_linear: '{name}' has shape .* rank"):
        build({name: (dtype, [*shape, 1])})


@pytest.mark.parametrize("name", [name for name in OPERANDS if name != "x"])
def test_another_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"grouped_linear: '{name}' is on cpu:1"):
        build(elsewhere=name)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", [ROWS, 64], "dimension 1 of 'x' is 64 .* 96, the K of 'weight'"),
        ("expert_start_indices", [EXPERTS], "dimension 0 of 'expert_start_indices' is 4 .* 5"),
        ("expert_ids", [3], "dimension 0 of 'expert_ids' is 3 .* 4, the experts of 'weight'"),
        ("weight", ["e", FEATURES, DEPTH], "dimension 0 of 'weight' is the symbolic e"),
        ("weight", [EXPERTS, "n", DEPTH], "dimension 1 of 'weight' is the symbolic n"),
        ("weight", [EXPERTS, FEATURES, "k"], "dimension 2 of 'weight' is the symbolic k"),
        ("weight", [EXPERTS, FEATURES, 0], "'weight' of shape .* is empty"),
        ("weight", [EXPERTS, FEATURES, 100], "has K = 100; K must be a multiple of 8"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    name: str, shape: list[int | str], message: str
) -> None:
    with pytest.raises(ValueError, match=f"grouped_linear: .*{message}"):
        build({name: (OPERANDS[name][0], shape)})
