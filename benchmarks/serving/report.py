# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The table of a results file."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from serving.results import MODELS, PROMPTS


def print_report(content: dict[str, Any], console: Console) -> None:
    """Prints the content of a results file, a table for each model."""
    versions = ", ".join(f"{name} {value}" for name, value in content["versions"].items())
    console.print(f"{content['device']}, {content['date']}; {versions}")
    for model in MODELS:
        rows = [row for row in content["rows"] if row["model"] == model]
        if rows:
            console.print(_table(model, rows))


def share_of_limit(row: dict[str, Any]) -> float | None:
    """Percent of the hardware's limit that decoding reaches."""
    rate, limit = row["decode_tokens_per_s"], row["limit_tokens_per_s"]
    return 100 * rate / limit if rate is not None and limit else None


def _table(model: str, rows: list[dict[str, Any]]) -> Table:
    lengths = [name for name in PROMPTS if any(name in row["ttft_ms"] for row in rows)]
    table = Table(title=f"gpt-oss-{model}")
    for column in ("batch", "graphs", "decode tokens/s", "% of limit"):
        table.add_column(column, justify="right")
    for name in lengths:
        table.add_column(f"first token, {name}, ms", justify="right")
    for column in ("peak GiB", "load s", "copy s", "compile s"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["batch"]),
            "on" if row["device_graphs"] else "off",
            _number(row["decode_tokens_per_s"], 0),
            _number(share_of_limit(row), 0),
            *(_number(row["ttft_ms"].get(name), 1) for name in lengths),
            *(_number(row[name], 1) for name in ("peak_device_gib", "load_s", "copy_s")),
            _number(row["compile_s"], 1),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "missing" if value is None else f"{value:.{digits}f}"
