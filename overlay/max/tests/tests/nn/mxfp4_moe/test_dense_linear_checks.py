# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the ``dense_linear`` op refuses while a graph is built."""

from __future__ import annotations

import pytest
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from max.nn.dense_linear import dense_linear, kernel_package_path

TOKENS, FEATURES, DEPTH = 3, 40, 96

Spec = tuple[DType, list[int | str]]

OPERANDS: dict[str, Spec] = {
    "x": (DType.bfloat16, [TOKENS, DEPTH]),
    "weight": (DType.bfloat16, [FEATURES, DEPTH]),
    "bias": (DType.bfloat16, [FEATURES]),
}


def build(
    changes: dict[str, Spec] | None = None,
    *,
    elsewhere: str | None = None,
    without: str | None = None,
) -> TensorValue:
    """Builds a graph of the op with some of its operands changed, and returns the result."""
    specs = {name: spec for name, spec in (OPERANDS | (changes or {})).items() if name != without}
    types = [
        TensorType(dtype, shape, DeviceRef.CPU(1 if name == elsewhere else 0))
        for name, (dtype, shape) in specs.items()
    ]
    with Graph("layer", input_types=types, custom_extensions=[kernel_package_path()]) as graph:
        return dense_linear(*(value.tensor for value in graph.inputs))


@pytest.mark.parametrize("without", [None, "bias"])
def test_result(without: str | None) -> None:
    result = build({"x": (DType.bfloat16, ["tokens", DEPTH])}, without=without)
    assert result.dtype == DType.bfloat16
    assert [str(dim) for dim in result.shape] == ["tokens", str(FEATURES)]


@pytest.mark.parametrize("name", OPERANDS)
def test_another_dtype_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"dense_linear: '{name}' is float32; it must be bfloat16"):
        build({name: (DType.float32, OPERANDS[name][1])})


@pytest.mark.parametrize("name", OPERANDS)
def test_another_rank_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"dense_linear: '{name}' has shape .* rank"):
        build({name: (DType.bfloat16, [*OPERANDS[name][1], 1])})


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_another_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"dense_linear: '{name}' is on cpu:1"):
        build(elsewhere=name)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", [TOKENS, 64], "dimension 1 of 'x' is 64 .* 96, the K of 'weight'"),
        ("bias", [32], "dimension 0 of 'bias' is 32 .* 40, the N of 'weight'"),
        ("weight", ["n", DEPTH], "dimension 0 of 'weight' is the symbolic n"),
        ("weight", [FEATURES, "k"], "dimension 1 of 'weight' is the symbolic k"),
        ("weight", [0, DEPTH], "'weight' of shape .* is empty"),
        ("weight", [FEATURES, 0], "'weight' of shape .* is empty"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    name: str, shape: list[int | str], message: str
) -> None:
    with pytest.raises(ValueError, match=f"dense_linear: {message}"):
        build({name: (DType.bfloat16, shape)})
