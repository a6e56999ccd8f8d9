# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Device memory of MXFP4 experts that are expanded to BF16 at load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from max.driver import load_devices
from max.pipelines.weights.quant import is_mxfp4_checkpoint

from max.nn.mxfp4_moe.ops import SCALE_BLOCK_SIZE

from .quantization_format import has_expert_kernels

if TYPE_CHECKING:
    from max.pipelines.lib import PipelineConfig

    from .model_config import GptOssConfig

_BFLOAT16 = 2


def expanded_expert_memory(config: GptOssConfig, pipeline_config: PipelineConfig) -> int:
    """Bytes that the expanded experts of an MXFP4 checkpoint need, over all devices.

    They come on top of the packed ones, which are the model's weights and are there while the
    others are made of them.

    Args:
        config: The model.
        pipeline_config: Names the checkpoint and the devices.

    Returns:
        The bytes; 0 where no experts are expanded at load.

    Raises:
        ValueError: If the devices have less memory free than these and the packed ones need.
    """
    model = pipeline_config.model
    if (
        config.quantization_format != "bf16"
        or not has_expert_kernels(config.devices[0])
        or not is_mxfp4_checkpoint(model.huggingface_config)
    ):
        return 0
    # Gate and up, and down.
    matrices = 3 * config.hidden_size * config.intermediate_size
    elements = config.num_hidden_layers * config.num_local_experts * matrices
    expanded = elements * _BFLOAT16
    packed = elements // 2 + elements // SCALE_BLOCK_SIZE
    free = sum(int(device.stats["free_memory"]) for device in load_devices(model.device_specs))
    if packed + expanded > free:
        raise ValueError(
            "quantization_format 'bf16' (--quantization-encoding bfloat16) expands the experts of "
            f"this MXFP4 checkpoint, {packed / 1e9:.1f} GB, to {expanded / 1e9:.1f} GB, and "
            f"{len(config.devices)} device(s) have {free / 1e9:.1f} GB free for both; leave "
            "--quantization-encoding out, or use more devices."
        )
    return expanded
