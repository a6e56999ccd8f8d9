# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Adds up the reports that the suites wrote, into one closing line."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer


def main(
    logs: Annotated[Path, typer.Argument(help="Folder of the suites' reports.")],
) -> None:
    """Print how many tests passed, failed and were skipped, and why those were."""
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for report in sorted(logs.resolve().rglob("test.xml")):
        for case in ElementTree.parse(report).iter("testcase"):
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                totals["failed"] += 1
            elif skipped is not None:
                totals["skipped"] += 1
                reasons[_reason(skipped)] += 1
            else:
                totals["passed"] += 1
    for reason, count in sorted(reasons.items()):
        typer.echo(f"{count} skipped: {reason}")
    typer.echo(f"{totals['passed']} passed, {totals['failed']} failed, {totals['skipped']} skipped")
    if totals["failed"] or not totals["passed"]:
        raise typer.Exit(1)


def _reason(skipped: ElementTree.Element) -> str:
    """Why a test, or a whole module at its collection, was skipped."""
    message = skipped.get("message", "")
    return skipped.text or message if message == "collection skipped" else message


if __name__ == "__main__":
    typer.run(main)
