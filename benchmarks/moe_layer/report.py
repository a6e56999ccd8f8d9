# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The tables of a results file."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from moe_layer.results import PEERS
from moe_layer.shapes import EXPERTS


def print_report(content: dict[str, Any], console: Console) -> None:
    """Prints the content of a results file, in microseconds."""
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items() if value)
    console.print(f"{content['device']}, {content['date']}; {versions}")
    console.print(
        f"copy {_number(content['copy_tb_per_s'], 2)} TB/s, "
        f"BF16 matmul {_number(content['matmul_tflop_per_s'])} TFLOP/s"
    )
    for experts in EXPERTS:
        rows = [row for row in content["rows"] if row["experts"] == experts]
        if rows:
            console.print(_layer_table(experts, rows))
    for experts in EXPERTS:
        rows = [row for row in content["matmul_rows"] if row["experts"] == experts]
        if rows:
            console.print(_matmul_table(experts, rows))


def best_peer(row: dict[str, Any]) -> float | None:
    """The time of the fastest peer that was measured."""
    times = [us for us in row["peers_us"].values() if us is not None]
    return min(times, default=None)


def _layer_table(experts: int, rows: list[dict[str, Any]]) -> Table:
    table = _table(f"MoE layer, {experts} experts, µs")
    for column in ("ours", *PEERS, "limit", "ours / limit", "best peer / ours"):
        table.add_column(column, justify="right")
    for row in rows:
        ours, limit = row["ours_us"], row["limit_us"]
        table.add_row(
            str(row["tokens"]),
            _number(row["active_experts"], 1),
            *(_number(us) for us in (ours, *(row["peers_us"][name] for name in PEERS), limit)),
            _number(_ratio(ours, limit), 2),
            _number(_ratio(best_peer(row), ours), 2),
        )
    return table


def _matmul_table(experts: int, rows: list[dict[str, Any]]) -> Table:
    table = _table(f"mxfp4_moe_matmul alone, gate/up, {experts} experts, µs")
    for column in ("ours", "limit", "ours / limit"):
        table.add_column(column, justify="right")
    for row in rows:
        ours, limit = row["ours_us"], row["limit_us"]
        table.add_row(
            str(row["tokens"]),
            _number(row["active_experts"], 1),
            *(_number(us) for us in (ours, limit)),
            _number(_ratio(ours, limit), 2),
        )
    return table


def _table(title: str) -> Table:
    table = Table(title=title)
    for column in ("tokens", "active"):
        table.add_column(column, justify="right")
    return table


def _ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other is not None else None


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "missing"
    return f"{value:.{(1 if value < 100 else 0) if digits is None else digits}f}"
