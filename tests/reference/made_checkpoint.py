# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A small checkpoint to test the maker with, and its tensors read by the safetensors library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import deserialize

from checkpoint import Shapes, make_checkpoint

SMALL = Shapes(
    layers=3,
    experts=5,
    top_k=2,
    hidden=96,
    intermediate=160,
    heads=6,
    kv_heads=2,
    head_dim=32,
    vocab=600,
)


class StoredTensor(NamedTuple):
    """A tensor as it lies in a shard; ``bits`` is uint8, or uint16 for BF16."""

    dtype: str
    bits: npt.NDArray[Any]
    shard: str


def make_small(folder: Path, shapes: Shapes = SMALL, *, seed: int = 7, force: bool = False) -> Path:
    """Make a checkpoint in ``folder`` and return the folder."""
    make_checkpoint(folder, shapes, seed=seed, force=force, advance=lambda _: None)
    return folder


def load_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint, by name."""
    element = {"U8": np.uint8, "BF16": np.uint16}
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        entries = deserialize(shard.read_bytes())  # type: ignore[no-untyped-call]
        for name, entry in entries:
            bits = np.frombuffer(entry["data"], element[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = StoredTensor(entry["dtype"], bits, shard.name)
    return tensors
