#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures one gpt-oss MoE layer: ours, both peers and the hardware's limit, back to back.

``build`` runs anywhere with the environment of scripts/setup.sh, ``run`` on a GPU host that may
have no network and no compiler, and ``report`` anywhere.
"""

# The GPU host may have no typer and no rich: `run` imports neither.
from __future__ import annotations

import argparse
import sys
from pathlib import Path

from moe_layer.errors import BenchmarkError
from moe_layer.results import merge_results, write_results


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is not report and not (options.ours or options.peers):
        parser.error("give --ours, --peers or both.")
    try:
        status: int = options.command(options)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def build(options: argparse.Namespace) -> int:
    """Make the folders."""
    from moe_layer.build import build_ours, build_peers

    if options.ours:
        build_ours(options.ours)
        print(options.ours)
    if options.peers:
        build_peers(options.peers, options.vllm_wheel)
        print(options.peers)
    return 0


def run(options: argparse.Namespace) -> int:
    """Measure; what failed is in the file too, and makes the status 1."""
    from moe_layer.run import measure

    results = measure(options.ours, options.peers, options.timeout)
    write_results(results, options.output)
    print(options.output)
    for failure in results.failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if results.failures else 0


def report(options: argparse.Namespace) -> int:
    """Merge, print and draw; a time that is missing makes the status 1."""
    from rich.console import Console

    from moe_layer.chart import draw_chart
    from moe_layer.report import print_report

    results = merge_results(options.results)
    content = results.to_json()
    print_report(content, Console())
    if options.output:
        write_results(results, options.output)
        print(options.output)
    if options.chart:
        draw_chart(content, options.chart)
        print(options.chart)
    for failure in results.failures:
        print(f"failed: {failure}", file=sys.stderr)
    missing = results.missing()
    for what in missing:
        print(f"missing: {what}", file=sys.stderr)
    return 1 if missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="build|run|report")

    one = commands.add_parser("build", help="make the folders that run needs")
    _add_folders(one, "where to put")
    one.add_argument("--vllm-wheel", type=Path, help="vLLM's wheel, instead of a download")
    one.set_defaults(command=build)

    one = commands.add_parser("run", help="measure on a Hopper GPU")
    _add_folders(one, "folder with")
    one.add_argument("--output", type=Path, required=True, help="results file to write")
    one.add_argument("--timeout", type=float, default=60, help="seconds a program may take (60)")
    one.set_defaults(command=run)

    one = commands.add_parser("report", help="merge results files, print tables, draw the chart")
    one.add_argument("results", type=Path, nargs="+", help="results files of one device and date")
    one.add_argument("--output", type=Path, help="results file to write")
    one.add_argument("--chart", type=Path, help="chart to draw, .svg or .png")
    one.set_defaults(command=report)
    return parser


def _add_folders(parser: argparse.ArgumentParser, verb: str) -> None:
    for name, what in (("ours", "our program"), ("peers", "the peers")):
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=f"{verb} {what}")


if __name__ == "__main__":
    sys.exit(main())
