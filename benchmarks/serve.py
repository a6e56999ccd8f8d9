#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures max serve with gpt-oss: decode, time to first token, memory, load and compile time.

``run`` works on a GPU host that has MAX and may have no network, and no compiler if graphs come
with --precompiled-mefs; ``report`` works anywhere.
"""

# The GPU host may have no typer: `run` does not import it.
from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Made checkpoints are those of scripts/make_checkpoint.py.
sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

from moe_layer.errors import BenchmarkError
from moe_layer.results import write_results
from serving.results import MODELS, merge_results

GRAPHS = {"on": (True,), "off": (False,), "both": (True, False)}


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return status


def run(options: argparse.Namespace) -> int:
    """Measure; what failed is in the file too, and makes the status 1."""
    from serving.run import Options, measure

    results = measure(
        Options(
            model=options.model,
            checkpoint=options.checkpoint or Path(f"/dev/shm/gpt-oss-{options.model}"),
            device_graphs=GRAPHS[options.device_graphs],
            device_gib=options.device_gib,
            utilization=options.device_memory_utilization,
            max_length=options.max_length,
            precompiled_mefs=options.precompiled_mefs,
            logs=options.output.with_suffix(""),
            start_timeout=options.start_timeout,
            client_timeout=options.client_timeout,
        ),
        save=lambda results: write_results(results, options.output),
    )
    print(options.output)
    for failure in results.failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if results.failures else 0


def report(options: argparse.Namespace) -> int:
    """Merge, print and draw; a figure that is missing makes the status 1."""
    from rich.console import Console

    from serving.chart import draw_chart
    from serving.report import print_report

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
    commands = parser.add_subparsers(required=True, metavar="run|report")

    one = commands.add_parser("run", help="measure on a Hopper GPU")
    one.add_argument("--model", choices=MODELS, required=True, help="sizes of the checkpoint")
    one.add_argument("--output", type=Path, required=True, help="results file to write")
    one.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FOLDER",
        help="gpt-oss checkpoint; made if there is none (/dev/shm/gpt-oss-MODEL)",
    )
    one.add_argument(
        "--device-graphs", choices=GRAPHS, default="both", help="whether steps are captured (both)"
    )
    one.add_argument(
        "--device-gib",
        type=float,
        metavar="GIB",
        help="limit device memory to that of a card of so many GiB; an 80 GB H100 has 79.6",
    )
    one.add_argument(
        "--device-memory-utilization",
        type=float,
        metavar="SHARE",
        help="as for max serve; gpt-oss-120b on 79.6 GiB needs 0.99",
    )
    one.add_argument(
        "--max-length",
        type=int,
        default=131072,
        metavar="TOKENS",
        help="longest context that is accepted (131072)",
    )
    one.add_argument(
        "--precompiled-mefs",
        type=Path,
        metavar="FOLDER",
        help="graphs compiled by max warm-cache --export-mefs",
    )
    one.add_argument(
        "--start-timeout",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="until a server has to be ready (1800)",
    )
    one.add_argument(
        "--client-timeout",
        type=float,
        default=600,
        metavar="SECONDS",
        help="for each run of the client (600)",
    )
    one.set_defaults(command=run)

    one = commands.add_parser("report", help="merge results files, print tables, draw the chart")
    one.add_argument("results", type=Path, nargs="+", help="results files of one device and date")
    one.add_argument("--output", type=Path, help="results file to write")
    one.add_argument("--chart", type=Path, help="chart to draw, .svg or .png")
    one.set_defaults(command=report)
    return parser


if __name__ == "__main__":
    sys.exit(main())
