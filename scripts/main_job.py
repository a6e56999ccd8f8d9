# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The main job: gpt-oss with packed experts, as far as this machine's hardware goes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import typer

from checkpoint import PRESETS, Shapes, make_checkpoint
from cpu_layer import layer_error
from hopper import why_no_hopper

MAX = Path(sys.executable).with_name("max")
TARGET = "cuda:sm_90a"
TOLERANCE = 0.01
"""BF16 rounds the layer's inner and last results to 8 bits, which leaves about 0.003."""


def main() -> None:
    """Generate on a Hopper GPU; without one, check a layer on the CPU and cross-compile."""
    missing = why_no_hopper()
    with tempfile.TemporaryDirectory(prefix="max-gpt-oss-") as name:
        folder = Path(name)
        if missing is None:
            _generate(folder)
            return
        typer.echo(f"No Hopper GPU: {missing}.")
        _check_layer(folder)
        _cross_compile(folder)


def _generate(folder: Path) -> None:
    shapes = replace(PRESETS["20b"], layers=4)
    checkpoint = _make(folder / "checkpoint", shapes)
    typer.echo("Generating 32 tokens with max generate; the compiler takes minutes first.")
    _max("generate", "--model-path", checkpoint, "--prompt", "Hello", "--max-new-tokens", "32")
    typer.echo(f"checked: max generate ran {_words(shapes)} on the GPU; its weights are random.")


def _check_layer(folder: Path) -> None:
    shapes = replace(PRESETS["20b"], layers=1, vocab=PRESETS["toy"].vocab)
    checkpoint = _make(folder / "layer", shapes)
    tokens = 4
    error = layer_error(checkpoint, tokens, shapes.top_k)
    line = (
        f"one MoE layer of {_words(shapes)} on MAX's CPU engine, {tokens} tokens: relative L2 "
        f"error {error:.4f} against the NumPy reference (limit {TOLERANCE})"
    )
    if not error <= TOLERANCE:
        typer.echo(f"FAILED: {line}", err=True)
        raise typer.Exit(1)
    typer.echo(f"checked: {line}")


def _cross_compile(folder: Path) -> None:
    shapes = PRESETS["toy"]
    checkpoint = _make(folder / "toy", shapes)
    typer.echo(f"Compiling the whole pipeline for {TARGET}; this takes minutes.")
    _max("warm-cache", "--target", TARGET, "--model-path", checkpoint)
    typer.echo(f"checked: the whole pipeline of {_words(shapes)} compiles for {TARGET}")


def _make(folder: Path, shapes: Shapes) -> Path:
    typer.echo(f"Making a checkpoint of {_words(shapes)}")
    make_checkpoint(folder, shapes, seed=0, force=False, advance=lambda written: None)
    return folder


def _words(shapes: Shapes) -> str:
    return (
        f"a gpt-oss with {shapes.layers} layer{'s' if shapes.layers > 1 else ''}, "
        f"{shapes.experts} experts and hidden size {shapes.hidden}"
    )


def _max(*arguments: str | Path) -> None:
    command = [str(MAX), *map(str, arguments)]
    # Without what the MAX runtime, once loaded, adds to the process behind Python's back.
    result = subprocess.run(command, env=dict(os.environ), check=False)
    if result.returncode != 0:
        typer.echo(f"FAILED: max {arguments[0]} ended with {result.returncode}", err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
