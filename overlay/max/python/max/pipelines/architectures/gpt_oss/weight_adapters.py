# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Names a gpt-oss checkpoint's tensors as MAX's modules do, without touching their bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from max.dtype import DType
from max.graph import DeviceRef
from max.graph.type import Shape
from max.graph.weights import WeightData, Weights
from max.pipelines.lib.config.model_config import _select_quantization_encoding

from .checkpoint import TensorInfo, check_packed_layout, is_openai_name, packed_stack_of
from .quantization_format import checkpoint_format, format_asked_for, runs_packed

if TYPE_CHECKING:
    from max.pipelines.lib import PipelineConfig
    from transformers import AutoConfig

_RENAMED_PREFIXES = {
    "model.": "language_model.",
    "lm_head.": "language_model.lm_head.",
}
_ROUTER = ".mlp.router."
_MAX_ROUTER = ".mlp.gate.gate_score."


def convert_safetensor_state_dict(
    state_dict: Mapping[str, Weights],
    huggingface_config: AutoConfig | None = None,
    pipeline_config: PipelineConfig | None = None,
    **_: Any,
) -> dict[str, WeightData]:
    """Converts a checkpoint's state dict to the names and shapes of MAX's gpt-oss.

    Packed experts stay the checkpoint's memory-mapped bytes: ``…_blocks`` uint8
    ``[E, N, K / 32, 16]`` is viewed as ``[E, N, K / 2]`` under the projection's own name,
    and ``…_scales`` ``[E, N, K / 32]`` is named ``…_scale``. Tensors of the original OpenAI
    layout, which repeat others, are left out. A checkpoint with BF16 experts is only
    renamed.

    Args:
        state_dict: The checkpoint's tensors by name.
        huggingface_config: Its config.json, to check the tensors against.
        pipeline_config: Tells which device runs the experts, and how. Where they are expanded,
            MAX takes scales labelled float8_e8m0fnu; the packed path, and a caller that gives
            no pipeline, takes them as uint8.

    Returns:
        The tensors by MAX's names.

    Raises:
        ValueError: If an MXFP4 checkpoint's tensors do not fit each other or
            ``huggingface_config``, naming the tensor.
    """
    tensors = {
        name: weight.data() for name, weight in state_dict.items() if not is_openai_name(name)
    }
    if checkpoint_format(huggingface_config, tensors) == "mxfp4":
        check_packed_layout(
            {
                name: TensorInfo(data.dtype.name, tuple(int(dim) for dim in data.shape))
                for name, data in tensors.items()
            },
            huggingface_config,
        )
    scale_dtype = _scale_dtype(pipeline_config)
    converted = {}
    for name, data in tensors.items():
        if packed_stack_of(name) is not None:
            data = _convert_packed(data, scale_dtype)
        max_name = _max_name(name)
        converted[max_name] = dataclasses.replace(data, name=max_name)
    return converted


def _scale_dtype(pipeline_config: PipelineConfig | None) -> DType:
    if pipeline_config is not None:
        model = pipeline_config.model
        spec = model.device_specs[0]
        asked = format_asked_for(_select_quantization_encoding(model, "bfloat16"))
        if not runs_packed(asked, DeviceRef(spec.device_type, spec.id)):
            return DType.float8_e8m0fnu
    return DType.uint8


def _convert_packed(data: WeightData, scale_dtype: DType) -> WeightData:
    if data.name.endswith("_scales"):
        return dataclasses.replace(data, dtype=scale_dtype)
    blocks = np.from_dlpack(data.data)
    view = blocks.reshape(*blocks.shape[:2], -1)
    return dataclasses.replace(data, data=view, shape=Shape(view.shape))


def _max_name(name: str) -> str:
    if packed_stack_of(name) is not None:
        name = name.removesuffix("_blocks")
        if name.endswith("_scales"):
            name = name.removesuffix("s")
    for prefix, renamed in _RENAMED_PREFIXES.items():
        if name.startswith(prefix):
            name = renamed + name.removeprefix(prefix)
            break
    return name.replace(_ROUTER, _MAX_ROUTER)
