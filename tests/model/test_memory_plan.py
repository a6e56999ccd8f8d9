# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""MAX's whole memory plan for the released models' sizes, on the memory of one card.

The checkpoints are files of holes: the plan needs their headers and sizes alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gpt_oss_configs import pipeline_config
from max.nn.kv_cache import KVCacheParamInterface
from max.pipelines.architectures.gpt_oss.memory_planner import GptOssMemoryPlanner
from max.pipelines.architectures.gpt_oss.model_config import GptOssConfig
from max.pipelines.kv_cache.paged_kv_cache.jenga_cache_manager import JengaKVCacheManager
from max.pipelines.lib import MemoryEstimator, MemoryPlan

from checkpoint.config import model_config
from checkpoint.shapes import PRESETS, Shapes
from checkpoint.shards import INDEX_NAME, header_bytes, index_json, plan_shards

GIB = 1024**3
H100_GIB = 79.2
"""What CUDA gives as the memory of an H100 of 80 GB: 79.6 GiB less what the driver keeps."""

MANAGED_GIB = 71.25
"""What MAX's memory manager takes of it, 90 %, and gives as free when MAX plans."""

UTILIZATION = 0.99
"""All of that: contexts and code have the 10 % outside."""

CONTEXT = 131072
PAGE_TOKENS = 128
BFLOAT16 = 2


@dataclass
class Card:
    """A GPU with nothing on it."""

    stats: dict[str, int] = field(default_factory=lambda: {"free_memory": int(MANAGED_GIB * GIB)})
    max_single_alloc_size: int = int(H100_GIB * GIB)
    is_host: bool = False


def write_holes(folder: Path, shapes: Shapes) -> Path:
    """Write a checkpoint whose tensors take no room on the disk."""
    shards = plan_shards(list(shapes.tensors()))
    for shard in shards:
        with (folder / shard.name).open("wb") as file:
            file.write(header_bytes(shard.tensors))
            file.truncate(file.tell() + sum(spec.nbytes for spec in shard.tensors))
    (folder / INDEX_NAME).write_text(index_json(shards))
    (folder / "config.json").write_text(json.dumps(model_config(shapes)))
    return folder


@dataclass
class Planned:
    """MAX's plan, and what it is made of, in bytes."""

    plan: MemoryPlan
    weights: int
    step: int
    kv_params: KVCacheParamInterface


def plan(folder: Path, monkeypatch: pytest.MonkeyPatch, **flags: Any) -> Planned:
    """Plan the checkpoint's pipeline on the card."""
    pipeline = pipeline_config(folder, **flags)
    model = pipeline.model
    assert model.max_length is not None
    config = GptOssConfig.initialize(pipeline, max_seq_len=model.max_length)
    planner = GptOssMemoryPlanner(config)
    card: Any = Card()
    weights = planner.estimate_weights_size(pipeline)
    step = planner.estimate_activation_memory(pipeline, model.huggingface_config)
    signals = planner.estimate_signal_buffer_memory(pipeline, config)
    # For a GPU that it only compiles for, MAX plans nothing.
    module = "max.pipelines.lib.memory_estimation"
    monkeypatch.setattr(f"{module}.is_virtual_device_mode", lambda: False)
    made = MemoryEstimator.plan_from_sizes(
        pipeline,
        model,
        config,
        [card],
        weights,
        step,
        signals,
        max_batch_size=pipeline.runtime.max_batch_size,
    )
    return Planned(made, weights, step, config.get_kv_params())


@pytest.fixture(scope="module")
def checkpoint_120b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of gpt-oss-120b's sizes."""
    return write_holes(tmp_path_factory.mktemp("120b"), PRESETS["120b"])


@pytest.mark.usefixtures("hopper")
def test_120b_fits_a_card_of_80_gb(checkpoint_120b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights, the largest batch's buffers and the whole context."""
    planned = plan(checkpoint_120b, monkeypatch, device_memory_utilization=UTILIZATION)
    assert planned.plan.planned_max_length == CONTEXT
    cache = planned.plan.available_cache_memory
    assert cache is not None
    assert planned.weights + planned.step + cache < Card().stats["free_memory"]
    assert cache > JengaKVCacheManager.memory_size(planned.kv_params, cache, 1, CONTEXT)


@pytest.mark.usefixtures("hopper")
def test_120b_holds_a_batch(checkpoint_120b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 sequences of 2,048 tokens each."""
    planned = plan(
        checkpoint_120b, monkeypatch, max_batch_size=64, device_memory_utilization=UTILIZATION
    )
    cache = planned.plan.available_cache_memory
    assert cache is not None
    assert JengaKVCacheManager.memory_size(planned.kv_params, 1 << 40, 64, 2048) <= cache


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize("model", ["20b", "120b"])
def test_sliding_layers_keep_their_window_alone(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long sequence costs the full layers' keys and values, and a few pages of the others'."""
    shapes = PRESETS[model]
    planned = plan(
        write_holes(tmp_path, shapes),
        monkeypatch,
        max_batch_size=1,
        device_memory_utilization=UTILIZATION,
    )
    token = 2 * shapes.kv_heads * shapes.head_dim * BFLOAT16
    full = shapes.layers // 2 * token * CONTEXT
    cache = planned.plan.available_cache_memory
    assert cache is not None
    needed = JengaKVCacheManager.memory_size(planned.kv_params, cache, 1, CONTEXT)
    page = shapes.layers // 2 * token * PAGE_TOKENS
    assert full < needed < full + 5 * page
