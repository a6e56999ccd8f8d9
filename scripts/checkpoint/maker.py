# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Writes a whole checkpoint: shards, index, configurations and tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from checkpoint.config import generation_config, model_config
from checkpoint.shapes import CheckpointError, Shapes
from checkpoint.shards import INDEX_NAME, SHARD_GLOB, index_json, plan_shards, write_shards
from checkpoint.tokenizer import write_tokenizer

_SMALL_FILES_BYTES = 64 * 2**20
"""Room for everything but the shards; the tokenizer of a full vocabulary takes most of it."""


def make_checkpoint(
    folder: Path,
    shapes: Shapes,
    *,
    seed: int,
    force: bool,
    advance: Callable[[int], object],
) -> None:
    """Write a checkpoint of random weights into ``folder``.

    The same shapes and seed give the same bytes. ``config.json`` comes last, so that what an
    interrupted run leaves is never taken for a checkpoint.

    Args:
        folder: Where to write; made if missing.
        shapes: The model's sizes.
        seed: Chooses the random weights.
        force: Replace the checkpoint that is in ``folder``.
        advance: Called with the number of bytes of tensor data that each step wrote.

    Raises:
        CheckpointError: impossible sizes, a folder in use, or too little disk space.
    """
    shapes.validate()
    shards = plan_shards(list(shapes.tensors()))
    _prepare_folder(folder, force)
    needed = sum(spec.nbytes for shard in shards for spec in shard.tensors) + _SMALL_FILES_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CheckpointError(
            f"{folder} has {free / 1e9:.1f} GB free and the checkpoint takes "
            f"{needed / 1e9:.1f} GB; choose another folder or smaller sizes."
        )
    write_shards(folder, shards, seed, advance)
    (folder / INDEX_NAME).write_text(index_json(shards), encoding="utf-8")
    write_tokenizer(folder, shapes.vocab)
    for name, contents in (
        ("generation_config.json", generation_config(shapes)),
        ("config.json", model_config(shapes)),
    ):
        (folder / name).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")


def _prepare_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; name a folder for the checkpoint.")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not force:
        raise CheckpointError(f"{folder} is not empty; name another folder or add --force.")
    for path in _checkpoint_files(folder):
        path.unlink()


def _checkpoint_files(folder: Path) -> Iterator[Path]:
    # config.json first: from here on the folder holds no checkpoint.
    yield from folder.glob("config.json")
    yield from folder.glob(SHARD_GLOB)
    yield from folder.glob(INDEX_NAME)
