#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Make a gpt-oss checkpoint of random weights, in Hugging Face layout, at any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from checkpoint import PRESETS, CheckpointError, make_checkpoint

Preset = Literal["toy", "20b", "120b"]
Size = int | None


def main(
    folder: Annotated[Path, typer.Argument(help="Where to write the checkpoint.")],
    preset: Annotated[
        Preset, typer.Option(help="Sizes to begin with; 20b and 120b are the released models'.")
    ] = "toy",
    layers: Annotated[Size, typer.Option(help="Decoder layers.")] = None,
    experts: Annotated[Size, typer.Option(help="Experts in a layer.")] = None,
    top_k: Annotated[Size, typer.Option(help="Experts that a token is routed to.")] = None,
    hidden: Annotated[Size, typer.Option(help="Hidden size, a multiple of 32.")] = None,
    intermediate: Annotated[
        Size, typer.Option(help="Width of an expert, a multiple of 32.")
    ] = None,
    heads: Annotated[Size, typer.Option(help="Attention heads.")] = None,
    kv_heads: Annotated[Size, typer.Option(help="Key and value heads.")] = None,
    head_dim: Annotated[Size, typer.Option(help="Size of an attention head.")] = None,
    vocab: Annotated[Size, typer.Option(help="Vocabulary, of tokenizer and model.")] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="BF16 experts instead of MXFP4.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses the random weights.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint.")] = False,
) -> None:
    """Write a gpt-oss checkpoint of random weights into FOLDER, in Hugging Face layout."""
    sizes = {
        "layers": layers,
        "experts": experts,
        "top_k": top_k,
        "hidden": hidden,
        "intermediate": intermediate,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "vocab": vocab,
    }
    given = {name: size for name, size in sizes.items() if size is not None}
    shapes = replace(PRESETS[preset], **given, packed=not bf16)
    console = Console(stderr=True)
    try:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        ) as progress:
            total = sum(spec.nbytes for spec in shapes.tensors())
            task = progress.add_task("weights", total=total, visible=False)
            make_checkpoint(
                folder,
                shapes,
                seed=seed,
                force=force,
                advance=lambda written: progress.update(task, advance=written, visible=True),
            )
    except (CheckpointError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
    typer.echo(folder)


if __name__ == "__main__":
    typer.run(main)
