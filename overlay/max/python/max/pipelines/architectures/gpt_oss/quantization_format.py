# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Decides whether gpt-oss experts run packed (``"mxfp4"``) or as BF16 (``"bf16"``)."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from max.driver import accelerator_architecture_name, accelerator_count
from max.graph import DeviceRef
from max.pipelines.weights.quant import is_mxfp4_checkpoint

from max.nn import dense_linear, mxfp4_moe

from .checkpoint import check_packed_layout, local_tensor_table, packed_stack_of

if TYPE_CHECKING:
    from max.pipelines.lib import MAXModelConfig
    from max.pipelines.modeling.config_enums import SupportedEncoding
    from transformers import AutoConfig

logger = logging.getLogger("max.pipelines")

QuantizationFormat = Literal["mxfp4", "bf16"]
"""How a model's expert weights are held and multiplied."""


def targets_hopper() -> bool:
    """Whether graphs compile for a Hopper GPU, present or the target of a cross-compile."""
    return accelerator_count() > 0 and accelerator_architecture_name().startswith("sm_90")


def runs_on_hopper(device: DeviceRef) -> bool:
    """Whether ``device`` is a Hopper GPU, present or the target of a cross-compile."""
    return not device.is_cpu() and targets_hopper()


def runs_packed(quantization_format: QuantizationFormat, device: DeviceRef) -> bool:
    """Whether experts on ``device`` are computed from their packed weights.

    Hopper GPUs and CPUs have the kernels. Elsewhere MXFP4 experts take MAX's own path,
    which expands them when it loads the model.
    """
    return quantization_format == "mxfp4" and has_expert_kernels(device)


def has_expert_kernels(device: DeviceRef) -> bool:
    """Whether ``device`` runs experts with kernels of ours: Hopper GPUs and CPUs."""
    return device.is_cpu() or targets_hopper()


def format_asked_for(encoding: SupportedEncoding | None) -> QuantizationFormat:
    """The format that ``--quantization-encoding``, or the one detected, stands for."""
    return "mxfp4" if encoding == "float4_e2m1fnx2" else "bf16"


def kernel_extensions(
    quantization_format: QuantizationFormat, device: DeviceRef
) -> tuple[Path, ...]:
    """The kernel packages a model's graph loads.

    Raises:
        KernelPackageError: If a package is needed and is missing, stale or built for
            another version of MAX.
    """
    extensions: list[Path] = []
    if runs_packed(quantization_format, device):
        extensions.append(mxfp4_moe.kernel_package_path())
    elif quantization_format == "mxfp4":
        logger.info(
            "Packed MXFP4 experts need an NVIDIA Hopper GPU: on %s every layer's experts are "
            "expanded to BF16, four times the memory.",
            accelerator_architecture_name(),
        )
    if runs_on_hopper(device):
        extensions.append(dense_linear.kernel_package_path())
    return tuple(extensions)


def select_quantization_format(
    model_config: MAXModelConfig, encoding: SupportedEncoding
) -> QuantizationFormat:
    """Chooses the format from the checkpoint and ``--quantization-encoding``.

    A checkpoint on this machine is checked from its headers on the way.

    Args:
        model_config: The model, its weight files resolved.
        encoding: The encoding asked for, or detected.

    Raises:
        ValueError: If the checkpoint is damaged, or cannot run in the format chosen.
    """
    config = model_config.huggingface_config
    table = local_tensor_table(model_config)
    checkpoint = checkpoint_format(config, table)
    if checkpoint == "mxfp4" and table is not None:
        check_packed_layout(table, config)
    asked = format_asked_for(encoding)
    if checkpoint == "mxfp4" and not targets_hopper():
        # MAX runs these experts as MXFP4 there, whatever the encoding says.
        asked = "mxfp4"
    check_quantization_format(asked, checkpoint)
    return asked


def checkpoint_format(
    config: AutoConfig | None, names: Collection[str] | None
) -> QuantizationFormat:
    """The format a checkpoint's experts are stored in.

    Args:
        config: The checkpoint's config.json.
        names: Its tensors, in the Hugging Face layout, or None where they are not known.

    Raises:
        ValueError: If ``config`` and ``names`` disagree.
    """
    declared = config is not None and is_mxfp4_checkpoint(config)
    if names is not None:
        packed = next((name for name in names if packed_stack_of(name)), None)
        if packed is not None and config is not None and not declared:
            raise ValueError(
                f"{packed} is packed MXFP4, but config.json has no quantization_config that "
                'says so; restore its "quantization_config": {"quant_method": "mxfp4"}.'
            )
        if packed is None and declared:
            raise ValueError(
                "config.json's quantization_config says mxfp4, but the checkpoint holds no "
                "experts.gate_up_proj_blocks; use the config.json that belongs to it."
            )
        return "bf16" if packed is None else "mxfp4"
    return "mxfp4" if declared else "bf16"


def check_quantization_format(quantization_format: str, checkpoint: QuantizationFormat) -> None:
    """Refuses a format that is unknown or cannot run this checkpoint.

    Raises:
        ValueError: With the way out.
    """
    if quantization_format not in get_args(QuantizationFormat):
        raise ValueError(
            f"quantization_format {quantization_format!r} is unknown; use 'mxfp4' or 'bf16'."
        )
    if quantization_format == "mxfp4" and checkpoint == "bf16":
        raise ValueError(
            "quantization_format 'mxfp4' (--quantization-encoding float4_e2m1fnx2) needs packed "
            "MXFP4 experts and this checkpoint's are BF16; leave --quantization-encoding out or "
            "use an MXFP4 checkpoint."
        )
    if quantization_format == "bf16" and checkpoint == "mxfp4" and not targets_hopper():
        raise ValueError(
            "quantization_format 'bf16' expands an MXFP4 checkpoint at load on Hopper GPUs alone; "
            "leave --quantization-encoding out or set it to float4_e2m1fnx2."
        )
