# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Damaged and mismatched checkpoints, refused from their headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_checkpoint import ToyCheckpoint, write_safetensors

from max.pipelines.architectures.gpt_oss.checkpoint import (
    INDEX_FILE,
    TensorInfo,
    read_tensor_table,
)

SHARD = "model-00001-of-00002.safetensors"


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_the_table_holds_every_tensor(tmp_path: Path) -> None:
    checkpoint = ToyCheckpoint()
    table = read_tensor_table(shards_of(checkpoint.write(tmp_path)))
    names = {"BF16": "bfloat16", "U8": "uint8"}
    assert table == {
        name: TensorInfo(names[dtype], array.shape)
        for name, (dtype, array) in checkpoint.tensors.items()
    }


def test_the_original_layout_in_a_subfolder_is_left_out(tmp_path: Path) -> None:
    checkpoint = ToyCheckpoint()
    folder = checkpoint.write(tmp_path)
    (folder / "original").mkdir()
    write_safetensors(
        folder / "original" / "model.safetensors",
        {
            name: ("BF16", np.zeros(4, np.uint16))
            for name in ("block.0.attn.norm.scale", "embedding.weight", "norm.scale")
        },
    )
    assert read_tensor_table(shards_of(folder)).keys() == checkpoint.tensors.keys()


def cut(size: int) -> Callable[[Path], None]:
    def damage(shard: Path) -> None:
        shard.write_bytes(shard.read_bytes()[:size])

    return damage


def lengthen(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes() + b"\0")


def header(text: str) -> Callable[[Path], None]:
    def damage(shard: Path) -> None:
        shard.write_bytes(len(text).to_bytes(8, "little") + text.encode())

    return damage


def entry(**entries: object) -> str:
    return json.dumps({"x": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} | entries})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut(0), "truncated or corrupt: it has 0 bytes"),
        (cut(5), "truncated or corrupt: it has 5 bytes"),
        (cut(100), "truncated or corrupt: it has 100 bytes and its header ends at"),
        (cut(-1), "truncated or corrupt: it has .* bytes and its header describes"),
        (lengthen, "truncated or corrupt: it has .* bytes and its header describes"),
        (header("{not json"), "corrupt: its safetensors header does not parse"),
        (header("[]"), "corrupt: its safetensors header does not parse"),
        (header('["x"]'), "corrupt: its safetensors header does not parse"),
        (header('{"x": {}}'), "corrupt: its safetensors header does not parse"),
        (header('{"x": 1}'), "corrupt: its safetensors header does not parse"),
        (header(entry(dtype="Q9")), "corrupt: .*Q9"),
        (header(entry(shape=[5])), r"corrupt: .* x of shape \[5\] has 4 bytes"),
        (header(entry(data_offsets=[0])), "corrupt: its safetensors header does not parse"),
    ],
)
def test_a_damaged_shard_is_named(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    damage(folder / SHARD)
    with pytest.raises(ValueError, match=rf"{SHARD} (is|does) .*{message.split(': ')[-1]}"):
        read_tensor_table(shards_of(folder))


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    (folder / SHARD).unlink()
    with pytest.raises(ValueError, match=rf"{SHARD} is missing: {INDEX_FILE} lists it"):
        read_tensor_table(shards_of(folder))


def test_a_shard_that_the_index_does_not_list_is_named(tmp_path: Path) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    (folder / SHARD).rename(folder / "extra.safetensors")
    index = folder / INDEX_FILE
    weight_map = json.loads(index.read_text())["weight_map"]
    listed = {name: file for name, file in weight_map.items() if file != SHARD}
    index.write_text(json.dumps({"weight_map": listed}))
    with pytest.raises(ValueError, match=rf"extra\.safetensors is not in {INDEX_FILE}"):
        read_tensor_table(shards_of(folder))


def test_a_tensor_that_its_shard_does_not_hold_is_named(tmp_path: Path) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    index = folder / INDEX_FILE
    content = json.loads(index.read_text())
    content["weight_map"]["model.lost.weight"] = SHARD
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{SHARD} does not hold the tensor model\.lost\.weight"):
        read_tensor_table(shards_of(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}'])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    folder = ToyCheckpoint().write(tmp_path)
    (folder / INDEX_FILE).write_text(text)
    with pytest.raises(ValueError, match=rf"{INDEX_FILE} is corrupt"):
        read_tensor_table(shards_of(folder))


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"lost\.safetensors is missing"):
        read_tensor_table([tmp_path / "lost.safetensors"])
