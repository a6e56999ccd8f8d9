# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""``tree.leaves`` finds what ``tree.flatten`` finds."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import pytest

from max import tree

Pair = namedtuple("Pair", ["left", "right"])


@tree.dataclass(frozen=True)
class Node:
    first: Any
    second: Any = None


SHARED = [1, 2]

TREES: list[Any] = [
    7,
    None,
    [],
    (),
    {},
    [1, (2, [3]), {"b": 4, "a": 5}],
    OrderedDict([("b", 1), ("a", 2)]),
    Pair([1], {"x": 2}),
    Node(1),
    Node([Node("a", "b")], Pair(None, (Node(0),))),
    [SHARED, SHARED],
]


@pytest.mark.parametrize("value", TREES, ids=str)
def test_leaves_are_those_of_flatten(value: Any) -> None:
    assert tree.leaves(value) == tree.flatten(value)[0]


@pytest.mark.parametrize("value", TREES, ids=str)
@pytest.mark.parametrize("leaf", [int, Node, (str, Pair), lambda value: isinstance(value, list)])
def test_a_selector_stops_both_alike(value: Any, leaf: Any) -> None:
    assert tree.leaves(value, leaf=leaf) == tree.flatten(value, leaf=leaf)[0]


def test_shared_values_count_once() -> None:
    assert tree.leaves([SHARED, SHARED], shared=True) == [1, 2]


def test_a_cycle_is_named() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    with pytest.raises(ValueError) as expected:
        tree.flatten(cycle)
    with pytest.raises(ValueError) as raised:
        tree.leaves(cycle)
    assert str(raised.value) == str(expected.value)


def test_keys_that_do_not_sort_are_refused() -> None:
    with pytest.raises(TypeError, match="sortable"):
        tree.leaves({1: 2, "a": 3})
