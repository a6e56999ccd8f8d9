# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Experts on their way to the device, through MAX's CPU engine, against the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gpt_oss_configs import UseGpu, one_layer_config
from max.driver import CPU, Buffer
from max.engine import InferenceSession
from max.graph import DeviceRef
from max.graph.weights import load_weights
from max.pipelines.lib.graph_specs import compile_graphs, init_graphs
from toy_checkpoint import ToyCheckpoint, ToyShape

from max.pipelines.architectures.gpt_oss.expert_panels import (
    PANELS_ROLE,
    STACKS,
    loads_in_panels,
    panels_spec,
    upload_in_panels,
)
from max.pipelines.architectures.gpt_oss.weight_adapters import convert_safetensor_state_dict
from reference.panels import to_panels

SHAPE = ToyShape(layers=2, experts=3, hidden=256, width=288)


def as_array(weight: Any) -> npt.NDArray[np.uint8]:
    return Buffer.from_dlpack(weight).to_numpy()


@pytest.fixture(scope="module")
def checkpoint_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A checkpoint's weights as the model binds them, memory-mapped."""
    folder: Path = ToyCheckpoint(SHAPE).write(tmp_path_factory.mktemp("checkpoint"))
    loaded = load_weights(sorted(folder.glob("*.safetensors")))
    state = convert_safetensor_state_dict(dict(loaded.items()))
    return {name: weight.data for name, weight in state.items()}


@pytest.fixture(scope="module")
def uploaded(checkpoint_weights: dict[str, Any]) -> dict[str, Any]:
    device = CPU()
    session = InferenceSession(devices=[device])
    specs = {PANELS_ROLE: panels_spec(one_layer_config(SHAPE))}
    models = init_graphs(session, compile_graphs(session, specs), specs)
    return upload_in_panels(models[PANELS_ROLE], checkpoint_weights, device)


@pytest.mark.parametrize("layer", range(SHAPE.layers))
@pytest.mark.parametrize("pair", [STACKS[:2], STACKS[2:]], ids=["gate_up", "down"])
def test_every_layer_comes_in_panels(
    checkpoint_weights: dict[str, Any],
    uploaded: dict[str, Any],
    layer: int,
    pair: tuple[str, str],
) -> None:
    names = [f"language_model.layers.{layer}.mlp.{stack}" for stack in pair]
    expected = to_panels(*(as_array(checkpoint_weights[name]) for name in names))
    for name, panels in zip(names, expected, strict=True):
        assert (as_array(uploaded[name]) == panels).all()
        assert (panels != as_array(checkpoint_weights[name])).any()


def test_other_weights_stay_the_memory_mapped_file(
    checkpoint_weights: dict[str, Any], uploaded: dict[str, Any]
) -> None:
    assert uploaded.keys() == checkpoint_weights.keys()
    stacks = {name for name in uploaded if name.endswith(STACKS)}
    assert len(stacks) == SHAPE.layers * len(STACKS)
    for name in uploaded.keys() - stacks:
        assert uploaded[name] is checkpoint_weights[name]


def test_one_hopper_gpu_loads_in_panels(hopper: None) -> None:
    gpu = [DeviceRef.GPU()]
    assert loads_in_panels(one_layer_config(SHAPE, devices=gpu))


@pytest.mark.parametrize("devices", [[DeviceRef.CPU()], [DeviceRef.GPU(0), DeviceRef.GPU(1)]])
def test_other_devices_have_the_op_in_the_graph(hopper: None, devices: list[DeviceRef]) -> None:
    assert not loads_in_panels(one_layer_config(SHAPE, devices=devices))


def test_what_fits_no_panels_is_left_as_it_is(hopper: None) -> None:
    narrow = ToyShape(hidden=96, width=64)
    assert not loads_in_panels(one_layer_config(narrow, devices=[DeviceRef.GPU()]))


def test_experts_that_are_expanded_are_left_as_they_are(use_gpu: UseGpu) -> None:
    use_gpu("sm_100a")
    assert not loads_in_panels(one_layer_config(SHAPE, devices=[DeviceRef.GPU()]))
