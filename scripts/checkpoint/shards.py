# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Safetensors shards, written in place by many threads, and their index."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from checkpoint.shapes import TensorSpec
from checkpoint.weights import Slab, slab_values, slabs

INDEX_NAME = "model.safetensors.index.json"
SHARD_GLOB = "model-*-of-*.safetensors"
SHARD_BYTES = 4_800_000_000
"""The largest shard, in bytes of data, unless one tensor is larger."""


class Shard(NamedTuple):
    """One file of the checkpoint and the tensors in it, in the order of their bytes."""

    name: str
    tensors: list[TensorSpec]


def plan_shards(tensors: Sequence[TensorSpec]) -> list[Shard]:
    """Split the tensors over at least two shards of at most ``SHARD_BYTES``, in order."""
    limit = min(SHARD_BYTES, -(-sum(spec.nbytes for spec in tensors) // 2))
    groups: list[list[TensorSpec]] = [[]]
    for spec in tensors:
        if groups[-1] and sum(other.nbytes for other in groups[-1]) + spec.nbytes > limit:
            groups.append([])
        groups[-1].append(spec)
    # Wider elements first, as the safetensors library has it, so that every tensor is aligned.
    return [
        Shard(
            f"model-{number:05}-of-{len(groups):05}.safetensors",
            sorted(group, key=lambda spec: (spec.dtype, spec.name)),
        )
        for number, group in enumerate(groups, start=1)
    ]


def index_json(shards: Sequence[Shard]) -> str:
    """The text of the index: which shard holds which tensor."""
    total = sum(spec.nbytes for shard in shards for spec in shard.tensors)
    weight_map = {spec.name: shard.name for shard in shards for spec in shard.tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2) + "\n"


def header_bytes(tensors: Sequence[TensorSpec]) -> bytes:
    """The header of a safetensors file: its length and its JSON, padded to eight bytes."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for spec in tensors:
        end = offset + spec.nbytes
        entries[spec.name] = {
            "dtype": spec.dtype,
            "shape": spec.shape,
            "data_offsets": (offset, end),
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_shards(
    folder: Path, shards: Sequence[Shard], seed: int, advance: Callable[[int], object]
) -> None:
    """Make and write every tensor; ``advance`` is called with the bytes that each step wrote."""
    workers = os.cpu_count() or 1
    with ExitStack() as files, ThreadPoolExecutor(workers) as pool:
        pending: set[Future[int]] = set()
        for shard in shards:
            file = files.enter_context((folder / shard.name).open("wb", buffering=0))
            header = header_bytes(shard.tensors)
            file.write(header)
            start = len(header)
            for spec in shard.tensors:
                for slab in slabs(spec):
                    # A bounded queue, so that a failed write ends the work soon.
                    if len(pending) >= 4 * workers:
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        advance(sum(future.result() for future in done))
                    offset = start + slab.offset
                    pending.add(pool.submit(_write_slab, file.fileno(), offset, spec, slab, seed))
                start += spec.nbytes
        for future in as_completed(pending):
            advance(future.result())


def _write_slab(file: int, offset: int, spec: TensorSpec, slab: Slab, seed: int) -> int:
    data = slab_values(spec, slab, seed).data.cast("B")
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)
    return written
