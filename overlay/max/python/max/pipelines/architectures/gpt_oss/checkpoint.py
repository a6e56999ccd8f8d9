# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Reads what a gpt-oss checkpoint holds from its headers, and checks that it is whole.

Nothing here reads tensor data, so a damaged or mismatched checkpoint is refused by name
before anything is compiled or uploaded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from max.pipelines.lib import MAXModelConfig
    from transformers import AutoConfig

INDEX_FILE = "model.safetensors.index.json"
"""Lists which shard holds which tensor, beside the shards."""

MXFP4_BLOCK = 32
"""Elements along K that share one scale; 16 bytes of a ``_blocks`` tensor."""

_DTYPES = {
    "BOOL": ("bool", 1),
    "U8": ("uint8", 1),
    "I8": ("int8", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "F8_E8M0": ("float8_e8m0fnu", 1),
    "I16": ("int16", 2),
    "U16": ("uint16", 2),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I32": ("int32", 4),
    "U32": ("uint32", 4),
    "F32": ("float32", 4),
    "I64": ("int64", 8),
    "U64": ("uint64", 8),
    "F64": ("float64", 8),
}

_PACKED_PART = re.compile(r"(?P<stack>.+\.experts\.\w+)_(?P<part>blocks|scales)")
_LAYER = re.compile(r"model\.layers\.(?P<layer>\d+)\.")

# The original OpenAI release's names, which sit beside the Hugging Face shards in a
# complete download and repeat the same weights.
_OPENAI_PREFIX = "block."
_OPENAI_NAMES = frozenset({"embedding.weight", "unembedding.weight", "norm.scale"})


@dataclass(frozen=True)
class TensorInfo:
    """What a header says about one tensor."""

    dtype: str
    """The dtype by MAX's name, such as ``"uint8"`` or ``"bfloat16"``."""

    shape: tuple[int, ...]


TensorTable = dict[str, TensorInfo]
"""Every tensor of a checkpoint, by name."""


def is_openai_name(name: str) -> bool:
    """Whether ``name`` is a tensor of the original OpenAI layout, which MAX skips."""
    return name.startswith(_OPENAI_PREFIX) or name in _OPENAI_NAMES


def packed_stack_of(name: str) -> str | None:
    """The expert stack that a ``_blocks`` or ``_scales`` tensor belongs to, if any."""
    match = _PACKED_PART.fullmatch(name)
    return match["stack"] if match else None


def local_tensor_table(model_config: MAXModelConfig) -> TensorTable | None:
    """Reads the tensor table of a checkpoint on this machine.

    Args:
        model_config: The model whose weight files are already resolved.

    Returns:
        The table, or None where the weights are not local safetensors files.

    Raises:
        ValueError: If a shard is missing, truncated or corrupt, or the index disagrees
            with the shards.
    """
    if (
        model_config.header_only_weights
        or model_config.huggingface_weight_repo.repo_type != "local"
    ):
        return None
    paths = model_config.resolved_weight_paths()
    if not paths or any(path.suffix != ".safetensors" for path in paths):
        return None
    return read_tensor_table(paths)


def read_tensor_table(paths: Sequence[Path]) -> TensorTable:
    """Reads and checks the headers of all shards of one checkpoint.

    Args:
        paths: The safetensors files.

    Returns:
        Every tensor in them, without the original OpenAI layout's repeats.

    Raises:
        ValueError: If a shard is missing, truncated or corrupt, or the index disagrees
            with the shards.
    """
    shards = {path: _read_shard(path) for path in paths}
    for folder in sorted({path.parent for path in paths}):
        held = {path.name: table for path, table in shards.items() if path.parent == folder}
        if (folder / INDEX_FILE).is_file():
            _check_index(folder, held)
    return {
        name: info
        for table in shards.values()
        for name, info in table.items()
        if not is_openai_name(name)
    }


def _read_shard(path: Path) -> TensorTable:
    if not path.is_file():
        raise ValueError(f"{path} is missing; download the checkpoint again.")
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        data_start = 8 + header_size
        if size < data_start:
            raise ValueError(
                f"{path} is truncated or corrupt: it has {size} bytes and its header ends at "
                f"byte {data_start}; download it again."
            )
        text = file.read(header_size)
    try:
        header: dict[str, Any] = json.loads(text)
        table = {}
        data_end = 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            shape = tuple(int(dim) for dim in entry["shape"])
            dtype, width = _DTYPES[entry["dtype"]]
            if end - start != math.prod(shape) * width:
                raise ValueError(f"tensor {name} of shape {list(shape)} has {end - start} bytes")
            table[name] = TensorInfo(dtype, shape)
            data_end = max(data_end, end)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is corrupt: its safetensors header does not parse "
            f"({type(error).__name__}: {error}); download it again."
        ) from error
    if size != data_start + data_end:
        raise ValueError(
            f"{path} is truncated or corrupt: it has {size} bytes and its header describes "
            f"{data_start + data_end}; download it again."
        )
    return table


def _check_index(folder: Path, held: Mapping[str, TensorTable]) -> None:
    index = folder / INDEX_FILE
    try:
        weight_map = dict(json.loads(index.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is corrupt: it holds no weight_map; download it again.") from (
            error
        )
    for file in sorted(set(weight_map.values())):
        if file not in held:
            raise ValueError(
                f"{folder / file} is missing: {INDEX_FILE} lists it; download it again."
            )
    for name, file in weight_map.items():
        if name not in held[file]:
            raise ValueError(
                f"{folder / file} does not hold the tensor {name} that {INDEX_FILE} lists in it; "
                "download both again."
            )
    for file, table in held.items():
        for name in table:
            if weight_map.get(name) != file:
                raise ValueError(
                    f"{folder / file} is not in {INDEX_FILE} as the shard of the tensor {name}; "
                    "download both again, or remove the file if it is not part of the checkpoint."
                )


def check_packed_layout(table: Mapping[str, TensorInfo], config: AutoConfig | None) -> None:
    """Checks every tensor of an MXFP4 checkpoint.

    Args:
        table: The checkpoint's tensors, by their names in the Hugging Face layout.
        config: The checkpoint's config.json. Without it only the packed expert stacks are
            checked, each against itself.

    Raises:
        ValueError: If blocks come without scales or the reverse, a tensor is missing or
            has another rank, shape or dtype, K is not a multiple of 32, or layers, experts
            or widths disagree with ``config``.
    """
    for name in table:
        stack = packed_stack_of(name)
        if stack is not None and name.endswith("_blocks"):
            _check_stack(stack, table)
        elif stack is not None and stack + "_blocks" not in table:
            raise ValueError(f"{name} comes without {stack}_blocks; the checkpoint is incomplete.")
    if config is not None:
        _check_against_config(table, config)


def _check_stack(stack: str, table: Mapping[str, TensorInfo]) -> None:
    """Checks a ``[E, N, K / 32, 16]`` blocks tensor and its ``[E, N, K / 32]`` scales."""
    name = stack + "_blocks"
    blocks = table[name]
    scales = table.get(stack + "_scales")
    if scales is None:
        raise ValueError(f"{name} comes without {stack}_scales; the checkpoint is incomplete.")
    for part, info in (("blocks", blocks), ("scales", scales)):
        if info.dtype != "uint8":
            raise ValueError(f"{stack}_{part} is {info.dtype}; MXFP4 {part} are uint8.")
    if len(blocks.shape) != 4:
        raise ValueError(
            f"{name} has shape {list(blocks.shape)}; MXFP4 blocks are [experts, rows, K / 32, 16]."
        )
    *rows, groups, group_bytes = blocks.shape
    if group_bytes != MXFP4_BLOCK // 2:
        raise ValueError(
            f"{name} has shape {list(blocks.shape)}, {2 * group_bytes} codes a block and "
            f"K = {2 * groups * group_bytes}; K must come in blocks of {MXFP4_BLOCK} codes, "
            f"{MXFP4_BLOCK // 2} bytes each."
        )
    if scales.shape != (*rows, groups):
        raise ValueError(
            f"{stack}_scales has shape {list(scales.shape)}; {name} of shape "
            f"{list(blocks.shape)} needs {[*rows, groups]}."
        )


def _check_against_config(table: Mapping[str, TensorInfo], config: AutoConfig) -> None:
    for key in ("hidden_size", "intermediate_size"):
        width = getattr(config, key)
        if width % MXFP4_BLOCK:
            raise ValueError(
                f"config.json's {key} is {width}; MXFP4 experts need a multiple of {MXFP4_BLOCK}."
            )
    layers = config.num_hidden_layers
    for name in table:
        match = _LAYER.match(name)
        if match and int(match["layer"]) >= layers:
            raise ValueError(
                f"{name} is beyond the {layers} layers of config.json's num_hidden_layers."
            )
    for name, dtype, shape in _expected_tensors(config):
        info = table.get(name)
        if info is None:
            raise ValueError(
                f"{name} is missing from the checkpoint; config.json asks for {layers} layers, "
                f"and this tensor as {dtype} {list(shape)}."
            )
        if info != TensorInfo(dtype, shape):
            raise ValueError(
                f"{name} is {info.dtype} {list(info.shape)}; config.json asks for "
                f"{dtype} {list(shape)}."
            )


def _expected_tensors(config: Any) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Every tensor an MXFP4 checkpoint of this config holds."""
    hidden, width = config.hidden_size, config.intermediate_size
    experts, heads = config.num_local_experts, config.num_attention_heads
    query, key = heads * config.head_dim, config.num_key_value_heads * config.head_dim
    bfloat16 = "bfloat16"
    yield "model.embed_tokens.weight", bfloat16, (config.vocab_size, hidden)
    yield "model.norm.weight", bfloat16, (hidden,)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", bfloat16, (config.vocab_size, hidden)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", bfloat16, (hidden,)
        yield prefix + "post_attention_layernorm.weight", bfloat16, (hidden,)
        yield prefix + "self_attn.sinks", bfloat16, (heads,)
        for name, rows, columns in (
            ("q_proj", query, hidden),
            ("k_proj", key, hidden),
            ("v_proj", key, hidden),
            ("o_proj", hidden, query),
        ):
            yield f"{prefix}self_attn.{name}.weight", bfloat16, (rows, columns)
            if config.attention_bias:
                yield f"{prefix}self_attn.{name}.bias", bfloat16, (rows,)
        yield prefix + "mlp.router.weight", bfloat16, (experts, hidden)
        yield prefix + "mlp.router.bias", bfloat16, (experts,)
        for name, rows, columns in (
            ("gate_up_proj", 2 * width, hidden),
            ("down_proj", hidden, width),
        ):
            stack = f"{prefix}mlp.experts.{name}"
            groups = columns // MXFP4_BLOCK
            yield stack + "_blocks", "uint8", (experts, rows, groups, MXFP4_BLOCK // 2)
            yield stack + "_scales", "uint8", (experts, rows, groups)
            yield stack + "_bias", bfloat16, (experts, rows)
