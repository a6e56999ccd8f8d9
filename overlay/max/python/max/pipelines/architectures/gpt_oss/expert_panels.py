# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Brings gpt-oss experts into panels while they load, a layer at a time.

An op of the decoder's graph could do it, and does on several devices. MAX then uploads all
stacks and allocates all panels before it frees the first stack, for which one GPU has no room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from max.driver import Buffer, Device, DLPackArray, is_virtual_device_mode
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import TensorType, TensorValue
from max.nn.layer import Module
from max.pipelines.lib.graph_specs import CompiledArtifacts, GraphRole, GraphSpec, init_graphs

from max.nn.mxfp4_moe import fits_panels, kernel_package_path, mxfp4_moe_to_panels
from max.nn.mxfp4_moe.ops import SCALE_BLOCK_SIZE

from .quantization_format import runs_packed

if TYPE_CHECKING:
    from .model_config import GptOssConfig

PANELS_ROLE = "expert_panels"
"""The role of the graph that brings one layer's stacks into panels."""

STACKS = (
    "experts.gate_up_proj",
    "experts.gate_up_proj_scale",
    "experts.down_proj",
    "experts.down_proj_scale",
)
"""A layer's stacks by their weights' names, in the order of that graph's inputs and outputs."""


class LayerToPanels(Module):
    """Brings the stacks of one layer into panels."""

    def __call__(
        self,
        gate_up: TensorValue,
        gate_up_scale: TensorValue,
        down: TensorValue,
        down_scale: TensorValue,
    ) -> tuple[TensorValue, ...]:
        """Permutes the stacks' bytes.

        Args:
            gate_up: uint8 ``[E, 2 I, H / 2]``.
            gate_up_scale: uint8 ``[E, 2 I, H / 32]``.
            down: uint8 ``[E, H, I / 2]``.
            down_scale: uint8 ``[E, H, I / 32]``.

        Returns:
            The same stacks in panels.
        """
        return (
            *mxfp4_moe_to_panels(gate_up, gate_up_scale),
            *mxfp4_moe_to_panels(down, down_scale),
        )


def loads_in_panels(config: GptOssConfig) -> bool:
    """Whether the decoder's graph binds stacks that are in panels on the device already."""
    return (
        len(config.devices) == 1
        and not config.devices[0].is_cpu()
        and runs_packed(config.quantization_format, config.devices[0])
        and fits_panels(2 * config.intermediate_size, config.hidden_size)
        and fits_panels(config.hidden_size, config.intermediate_size)
    )


def panels_spec(config: GptOssConfig) -> GraphSpec:
    """The graph that brings one layer's stacks into panels, for every layer in turn."""
    experts, hidden, width = (
        config.num_local_experts,
        config.hidden_size,
        config.intermediate_size,
    )
    return GraphSpec(
        LayerToPanels(),
        PANELS_ROLE,
        [
            TensorType(DType.uint8, [experts, rows, depth // per_byte], config.devices[0])
            for rows, depth in ((2 * width, hidden), (hidden, width))
            for per_byte in (2, SCALE_BLOCK_SIZE)
        ],
        weights={},
        custom_extensions=(kernel_package_path(),),
    )


def load_experts(
    session: InferenceSession,
    artifacts: CompiledArtifacts,
    specs: Mapping[str, GraphSpec],
    device: Device,
) -> dict[str, GraphSpec]:
    """Uploads the experts in panels, for a decoder that expects them so.

    Args:
        session: Initializes the graph of :data:`PANELS_ROLE`.
        artifacts: What ``specs`` compiled to.
        specs: The model's graphs; without :data:`PANELS_ROLE`, nothing is uploaded.
        device: Where the decoder runs.

    Returns:
        ``specs`` without :data:`PANELS_ROLE`, the decoder's stacks replaced by their panels
        in device memory.
    """
    others = {role: spec for role, spec in specs.items() if role != PANELS_ROLE}
    # A virtual device is compiled for and holds nothing.
    if PANELS_ROLE in specs and not is_virtual_device_mode():
        to_panels = init_graphs(session, artifacts, {PANELS_ROLE: specs[PANELS_ROLE]})
        decoder = specs[GraphRole.DECODER]
        others[GraphRole.DECODER] = dataclasses.replace(
            decoder,
            weights=upload_in_panels(to_panels[PANELS_ROLE], decoder.weights_registry(), device),
        )
    return others


def upload_in_panels(
    to_panels: Model, weights: Mapping[str, DLPackArray], device: Device
) -> dict[str, DLPackArray]:
    """Uploads each layer's stacks and replaces them by their panels.

    A layer's stacks are freed before those of the next are allocated, so that no more than one
    layer is on the device in both orders. Nothing waits for the device: a layer uploads while
    the one before is brought into panels.

    Args:
        to_panels: The initialized graph of :data:`PANELS_ROLE`.
        weights: The decoder's weights by name, the stacks in the checkpoint's order.
        device: Where ``to_panels`` runs.

    Returns:
        ``weights`` with every stack a buffer on ``device``.
    """
    loaded = dict(weights)
    for prefix in _layer_prefixes(weights):
        names = [prefix + stack for stack in STACKS]
        panels = to_panels.execute(
            *(Buffer.from_dlpack(weights[name]).to(device) for name in names)
        )
        loaded.update(zip(names, panels, strict=True))
    return loaded


def _layer_prefixes(weights: Mapping[str, DLPackArray]) -> Iterator[str]:
    return (name.removesuffix(STACKS[0]) for name in weights if name.endswith("." + STACKS[0]))
