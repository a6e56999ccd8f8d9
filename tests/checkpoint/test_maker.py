# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the checkpoint maker writes: names, shapes, shards, index, configuration, values."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from transformers import AutoConfig

from checkpoint import PRESETS, CheckpointError, make_checkpoint
from reference.made_checkpoint import SMALL, StoredTensor, load_tensors, make_small
from reference.mxfp4 import dequantize, from_bf16_bits

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_checkpoint.py"


class Made(NamedTuple):
    """A small checkpoint and its tensors."""

    folder: Path
    tensors: dict[str, StoredTensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = make_small(tmp_path_factory.mktemp("made") / "small")
    return Made(folder, load_tensors(folder))


def expected_shapes() -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of openai/gpt-oss-20b's shards, written out for the small sizes."""
    expected = {
        "model.embed_tokens.weight": ("BF16", (600, 96)),
        "model.norm.weight": ("BF16", (96,)),
        "lm_head.weight": ("BF16", (600, 96)),
    }
    for layer in range(3):
        for name, dtype, shape in (
            ("input_layernorm.weight", "BF16", (96,)),
            ("post_attention_layernorm.weight", "BF16", (96,)),
            ("self_attn.q_proj.weight", "BF16", (192, 96)),
            ("self_attn.q_proj.bias", "BF16", (192,)),
            ("self_attn.k_proj.weight", "BF16", (64, 96)),
            ("self_attn.k_proj.bias", "BF16", (64,)),
            ("self_attn.v_proj.weight", "BF16", (64, 96)),
            ("self_attn.v_proj.bias", "BF16", (64,)),
            ("self_attn.o_proj.weight", "BF16", (96, 192)),
            ("self_attn.o_proj.bias", "BF16", (96,)),
            ("self_attn.sinks", "BF16", (6,)),
            ("mlp.router.weight", "BF16", (5, 96)),
            ("mlp.router.bias", "BF16", (5,)),
            ("mlp.experts.gate_up_proj_blocks", "U8", (5, 320, 3, 16)),
            ("mlp.experts.gate_up_proj_scales", "U8", (5, 320, 3)),
            ("mlp.experts.gate_up_proj_bias", "BF16", (5, 320)),
            ("mlp.experts.down_proj_blocks", "U8", (5, 96, 5, 16)),
            ("mlp.experts.down_proj_scales", "U8", (5, 96, 5)),
            ("mlp.experts.down_proj_bias", "BF16", (5, 96)),
        ):
            expected[f"model.layers.{layer}.{name}"] = (dtype, shape)
    return expected


def test_names_shapes_and_dtypes(made: Made) -> None:
    found = {name: (tensor.dtype, tensor.bits.shape) for name, tensor in made.tensors.items()}
    assert found == expected_shapes()


def test_index_agrees_with_the_shards(made: Made) -> None:
    index = json.loads((made.folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: tensor.shard for name, tensor in made.tensors.items()}
    assert index["metadata"]["total_size"] == sum(
        tensor.bits.nbytes for tensor in made.tensors.values()
    )
    shards = sorted(path.name for path in made.folder.glob("*.safetensors"))
    count = len(shards)
    assert count >= 2
    assert shards == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]


def test_config_loads_in_transformers(made: Made) -> None:
    config = AutoConfig.from_pretrained(made.folder)
    assert config.architectures == ["GptOssForCausalLM"]
    assert config.model_type == "gpt_oss"
    assert config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]
    assert config.quantization_config["quant_method"] == "mxfp4"
    assert (config.hidden_size, config.intermediate_size) == (96, 160)
    assert (config.num_local_experts, config.num_experts_per_tok) == (5, 2)
    assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (6, 2, 32)
    assert (config.vocab_size, config.num_hidden_layers) == (600, 3)


@pytest.mark.parametrize(
    ("preset", "layers", "experts", "gigabytes"),
    [("20b", 24, 32, (13.7, 13.9)), ("120b", 36, 128, (65.2, 65.4))],
)
def test_presets_have_the_released_sizes(
    preset: str, layers: int, experts: int, gigabytes: tuple[float, float]
) -> None:
    specs = {spec.name: spec for spec in PRESETS[preset].tensors()}
    assert f"model.layers.{layers - 1}.self_attn.sinks" in specs
    assert f"model.layers.{layers}.self_attn.sinks" not in specs
    first = "model.layers.0."
    assert specs["lm_head.weight"].shape == (201_088, 2880)
    assert specs[f"{first}self_attn.q_proj.weight"].shape == (4096, 2880)
    assert specs[f"{first}self_attn.k_proj.weight"].shape == (512, 2880)
    assert specs[f"{first}mlp.experts.gate_up_proj_blocks"].shape == (experts, 5760, 90, 16)
    assert specs[f"{first}mlp.experts.down_proj_scales"].shape == (experts, 2880, 90)
    total = sum(spec.nbytes for spec in specs.values()) / 1e9
    assert gigabytes[0] < total < gigabytes[1]


def test_same_seed_same_bytes(made: Made, tmp_path: Path) -> None:
    again = make_small(tmp_path / "again")
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }


def test_another_seed_changes_every_tensor(made: Made, tmp_path: Path) -> None:
    other = load_tensors(make_small(tmp_path / "other", seed=8))
    for name, tensor in made.tensors.items():
        assert not np.array_equal(tensor.bits, other[name].bits), name


def test_tensors_do_not_depend_on_other_sizes(made: Made, tmp_path: Path) -> None:
    other = load_tensors(make_small(tmp_path / "other", replace(SMALL, layers=1, experts=7)))
    for name, tensor in other.items():
        rows = made.tensors[name].bits.shape[0]
        assert np.array_equal(tensor.bits[:rows], made.tensors[name].bits), name


def test_large_tensors_are_written_in_slabs_at_their_places(tmp_path: Path) -> None:
    shapes = replace(SMALL, layers=1, vocab=1500)
    tensors = load_tensors(make_small(tmp_path / "wide", shapes))
    table = from_bf16_bits(tensors["model.embed_tokens.weight"].bits)
    # No row is left unwritten, and no two runs of rows come from one stream.
    assert (table.std(axis=1) > 0.5).all()
    assert not np.array_equal(table[:400], table[512:912])
    assert abs(table.std() - 1.0) < 0.01


def test_weights_are_of_sensible_scale(made: Made) -> None:
    for name, tensor in made.tensors.items():
        if tensor.dtype == "BF16":
            values = from_bf16_bits(tensor.bits)
            assert np.isfinite(values).all(), name
        if name.endswith(("norm.weight", "layernorm.weight")):
            assert abs(values.mean() - 1.0) < 0.05, name
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            assert abs(values.std() * 96**0.5 - 1.0) < 0.05, name
    for name, k, gain in (("gate_up_proj", 96, 1.0), ("down_proj", 160, 0.5)):
        stem = f"model.layers.1.mlp.experts.{name}"
        scales = made.tensors[f"{stem}_scales"].bits
        blocks = made.tensors[f"{stem}_blocks"].bits.reshape(*scales.shape[:2], -1)
        values = dequantize(blocks, scales)
        assert abs(values.std() * k**0.5 / gain - 1.0) < 0.1
        assert abs(values.mean()) < 0.1 * values.std()
        # Neighbouring blocks have scales of their own, and every code occurs.
        assert (np.diff(scales.astype(np.int64), axis=-1) != 0).mean() > 0.3
        assert len(np.unique(blocks)) == 256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 100}, "--hidden is 100; .* multiple of 32"),
        ({"intermediate": 48}, "--intermediate is 48; .* multiple of 32"),
        ({"heads": 5}, "--heads is 5; .* multiple of --kv-heads, 2"),
        ({"head_dim": 33}, "--head-dim is 33; .* even"),
        ({"top_k": 6}, "--top-k is 6; .* --experts, 5"),
        ({"vocab": 276}, "--vocab is 276; .* at least 277"),
        ({"layers": 0}, "--layers is 0; .* at least 1"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        make_small(tmp_path / "refused", replace(SMALL, **change))
    assert not (tmp_path / "refused").exists()


def test_a_folder_in_use_is_refused_and_force_replaces_only_the_checkpoint(tmp_path: Path) -> None:
    folder = make_small(tmp_path / "used", seed=1)
    stale = folder / "model-00009-of-00009.safetensors"
    stale.write_bytes(b"stale")
    note = folder / "note.txt"
    note.write_text("mine")
    before = (folder / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"used is not empty; .* --force"):
        make_small(folder)
    assert (folder / "config.json").read_bytes() == before
    make_small(folder, force=True)
    assert not stale.exists()
    assert note.read_text() == "mine"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(CheckpointError, match=r"file is a file; name a folder"):
        make_small(path)


def test_too_little_disk_space_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"0\.0 GB free and the checkpoint takes 0\.1 GB"):
        make_small(tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())


def test_a_write_that_fails_leaves_no_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="No space left"):
        make_small(tmp_path / "broken")
    assert not (tmp_path / "broken" / "config.json").exists()


def test_command_line(made: Made, tmp_path: Path) -> None:
    sizes = {name: size for name, size in vars(SMALL).items() if name != "packed"} | {"seed": 7}
    options = [f"--{name.replace('_', '-')}={size}" for name, size in sizes.items()]
    command = [sys.executable, str(SCRIPT), str(tmp_path / "cli"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "cli")
    shard = "model-00001-of-00003.safetensors"
    assert (tmp_path / "cli" / shard).read_bytes() == (made.folder / shard).read_bytes()
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "is not empty" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_bf16_experts_are_transposed_and_unquantized(tmp_path: Path) -> None:
    folder = tmp_path / "bf16"
    make_checkpoint(
        folder, replace(SMALL, packed=False), seed=0, force=False, advance=lambda _: None
    )
    packed_parts = ("_blocks", "_scales")
    expected = {
        name: value for name, value in expected_shapes().items() if not name.endswith(packed_parts)
    }
    for layer in range(3):
        experts = f"model.layers.{layer}.mlp.experts."
        expected[experts + "gate_up_proj"] = ("BF16", (5, 96, 320))
        expected[experts + "down_proj"] = ("BF16", (5, 160, 96))
    tensors = load_tensors(folder)
    assert {name: (t.dtype, t.bits.shape) for name, t in tensors.items()} == expected
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    values = from_bf16_bits(tensors["model.layers.0.mlp.experts.down_proj"].bits)
    assert values.std() == pytest.approx(0.5 / 160**0.5, rel=0.05)
