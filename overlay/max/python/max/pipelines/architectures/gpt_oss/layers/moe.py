# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The gpt-oss mixture-of-experts layer."""

from __future__ import annotations

import dataclasses
from copy import copy
from functools import partial

from max.dtype import DType
from max.graph import DeviceRef, ShardingStrategy, TensorValue, ops
from max.nn.linear import Linear
from max.nn.moe import GateUpFormat, MoEGate, StackedMoE
from max.nn.quant_config import QuantConfig
from typing_extensions import Self

from max.nn.mxfp4_moe import (
    mxfp4_moe_combine,
    mxfp4_moe_down,
    mxfp4_moe_gate_up_swiglu,
    mxfp4_moe_route,
)
from max.nn.mxfp4_moe.ops import SCALE_BLOCK_SIZE, SWIGLU_ALPHA

from ..model_config import GptOssConfig
from ..quantization_format import runs_packed
from .dense import project


def gptoss_swiglu(gate: TensorValue, up: TensorValue, *, limit: float) -> TensorValue:
    """``(clamp(up, -limit, limit) + 1) * g * sigmoid(alpha * g)``, ``g = min(gate, limit)``.

    Args:
        gate: ``[R, I]``.
        up: ``[R, I]``.
        limit: The clamp.

    Returns:
        ``[R, I]`` in the dtype of ``gate``.
    """
    gate = ops.min(gate, limit)
    up = ops.max(ops.min(up, limit), -limit)
    return (up + 1.0) * (gate * ops.sigmoid(gate * SWIGLU_ALPHA))


class GptOssMoEGate(MoEGate):
    """The router: a linear layer with a bias, then a softmax over the selected experts."""

    def __init__(
        self,
        devices: list[DeviceRef],
        hidden_dim: int,
        num_experts: int,
        num_experts_per_token: int,
        dtype: DType,
    ) -> None:
        """Builds the router.

        Args:
            devices: The layer's devices; the router's weights start on the first.
            hidden_dim: ``H``.
            num_experts: ``E``.
            num_experts_per_token: ``k``.
            dtype: The dtype of the router's weights and logits.
        """
        super().__init__(
            devices=devices,
            hidden_dim=hidden_dim,
            num_experts=num_experts,
            num_experts_per_token=num_experts_per_token,
            dtype=dtype,
            linear_cls=partial(Linear, has_bias=True),
        )

    def top_logits(self, hidden: TensorValue) -> tuple[TensorValue, TensorValue]:
        """Selects each token's experts.

        Args:
            hidden: ``[T, H]``.

        Returns:
            The selected experts int64 ``[T, k]`` and their router logits ``[T, k]``.
        """
        logits, experts = ops.top_k(
            project(self.gate_score, hidden), k=self.num_experts_per_token, axis=-1
        )
        return experts, logits

    def __call__(self, hidden: TensorValue) -> tuple[TensorValue, TensorValue]:
        """Selects and weights each token's experts.

        Args:
            hidden: ``[T, H]``.

        Returns:
            The selected experts int64 ``[T, k]`` and their weights ``[T, k]``.
        """
        experts, logits = self.top_logits(hidden)
        return experts, ops.softmax(logits)


class GptOssMoE(StackedMoE):
    """gpt-oss experts, computed from their packed MXFP4 weights where the device can.

    On Hopper GPUs and CPUs the expert stacks stay packed: routing, gate/up with SwiGLU,
    down with the router's weights, and the sum over experts are four ops that expand
    weights in registers. Everything else takes the path of ``StackedMoE``.
    """

    def __init__(self, config: GptOssConfig, is_sharding: bool = False) -> None:
        """Builds the layer.

        Args:
            config: The model's configuration, its ``devices`` and ``intermediate_size``
                those of one shard when ``is_sharding``.
            is_sharding: Leaves the weights to ``shard()``.
        """
        self.config = config
        self.packed = runs_packed(config.quantization_format, config.devices[0])
        quant_config = config.quant_config
        if self.packed and quant_config is not None:
            quant_config = _with_byte_scales(quant_config)
        super().__init__(
            devices=config.devices,
            hidden_dim=config.hidden_size,
            num_experts=config.num_local_experts,
            num_experts_per_token=config.num_experts_per_tok,
            moe_dim=config.intermediate_size,
            gate_cls=GptOssMoEGate,
            dtype=config.dtype,
            gate_up_format=GateUpFormat.INTERLEAVED,
            gated_activation_fn=partial(gptoss_swiglu, limit=config.swiglu_limit),
            has_bias=True,
            quant_config=quant_config,
            is_sharding=is_sharding,
        )

    def __call__(self, x: TensorValue) -> TensorValue:
        """Applies the layer.

        Args:
            x: bfloat16 ``[T, H]``.

        Returns:
            bfloat16 ``[T, H]``, this device's share of the sum under tensor parallelism.
        """
        if not self.packed:
            return super().__call__(x)
        assert isinstance(self.gate, GptOssMoEGate)
        top_k = self.num_experts_per_token
        experts, logits = self.gate.top_logits(x)
        router_weights = ops.softmax(logits.cast(DType.float32))
        order, starts, ids = mxfp4_moe_route(experts.cast(DType.int32), self.num_experts)
        gated = mxfp4_moe_gate_up_swiglu(
            x,
            order,
            self._gate_up_weight,
            self._gate_up_scale,
            self._gate_up_bias,
            starts,
            ids,
            top_k=top_k,
            limit=self.config.swiglu_limit,
        )
        down_bias: TensorValue = self._down_bias
        if self.tp_size > 1:
            # Each device adds its share, so that the sum over devices adds the bias once.
            down_bias = down_bias / self.tp_size
        weighted = mxfp4_moe_down(
            gated,
            order,
            self._down_weight,
            self._down_scale,
            down_bias,
            router_weights,
            starts,
            ids,
        )
        return mxfp4_moe_combine(weighted, top_k=top_k)

    def _set_weight_sharding(self, strategy: ShardingStrategy) -> None:
        if self.quant_config is not None:
            _check_split(self.moe_dim, strategy.num_devices)
        super()._set_weight_sharding(strategy)

    def _create_sharded_instance(
        self, device: DeviceRef, sharded_moe_dim: int, sharded_shared_dim: int
    ) -> Self:
        config = copy(self.config)
        config.devices = [device]
        config.intermediate_size = sharded_moe_dim
        return type(self)(config, is_sharding=True)


def _with_byte_scales(quant_config: QuantConfig) -> QuantConfig:
    """The same configuration with E8M0 scales declared as the bytes the ops take."""
    return dataclasses.replace(
        quant_config,
        weight_scale=dataclasses.replace(quant_config.weight_scale, dtype=DType.uint8),
    )


def _check_split(width: int, devices: int) -> None:
    blocks = width // SCALE_BLOCK_SIZE
    if width % SCALE_BLOCK_SIZE or blocks % devices:
        raise ValueError(
            f"config.json's intermediate_size {width} is {blocks} MXFP4 blocks of "
            f"{SCALE_BLOCK_SIZE}, which {devices} devices cannot share evenly; use --devices with "
            "a number that divides them."
        )
