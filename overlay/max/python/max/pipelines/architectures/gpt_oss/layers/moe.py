# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The gpt-oss mixture-of-experts layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial

from max.dtype import DType
from max.graph import DeviceRef, ShardingStrategy, TensorValue, Weight, ops
from max.nn.kernels import mxfp4_dequant
from max.nn.linear import Linear
from max.nn.moe import GateUpFormat, MoEGate, StackedMoE
from max.nn.moe.stacked_moe import RoutingInfo
from max.nn.quant_config import QuantConfig
from typing_extensions import Self

from max.nn.dense_linear import grouped_linear
from max.nn.mxfp4_moe import ExpertStack, fits_panels, mxfp4_moe_experts, mxfp4_moe_to_panels
from max.nn.mxfp4_moe.ops import SCALE_BLOCK_SIZE, SWIGLU_ALPHA

from ..expert_panels import loads_in_panels
from ..model_config import GptOssConfig
from ..quantization_format import has_expert_kernels, runs_packed
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

    def __call__(self, hidden: TensorValue) -> tuple[TensorValue, TensorValue]:
        """Selects and weights each token's experts.

        Args:
            hidden: ``[T, H]``.

        Returns:
            The selected experts int64 ``[T, k]`` and their weights ``[T, k]``.
        """
        logits, experts = ops.top_k(
            project(self.gate_score, hidden), k=self.num_experts_per_token, axis=-1
        )
        return experts, ops.softmax(logits)


class GptOssMoE(StackedMoE):
    """gpt-oss experts, computed from their packed MXFP4 weights where the device can.

    On Hopper GPUs and CPUs the expert stacks stay packed, in panels where their shapes
    allow it: one op does everything behind the router's matmul, and expands weights in
    registers. Everything else takes the path of ``StackedMoE``; on a Hopper GPU,
    BF16 experts multiply with ``grouped_linear``, and those of an MXFP4 checkpoint are
    expanded when the model is initialized.
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
        self._loaded_in_panels = False
        self.grouped = not self.packed and has_expert_kernels(config.devices[0])
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
        gate_up = self._in_kernel_order(self._gate_up_weight, self._gate_up_scale)
        down = self._in_kernel_order(self._down_weight, self._down_scale)
        down_bias: TensorValue = self._down_bias
        if self.tp_size > 1:
            # Each device adds its share, so that the sum over devices adds the bias once.
            down_bias = down_bias / self.tp_size
        return mxfp4_moe_experts(
            x,
            project(self.gate.gate_score, x),
            ExpertStack(*gate_up, self._gate_up_bias),
            ExpertStack(*down, down_bias),
            top_k=self.num_experts_per_token,
            limit=self.config.swiglu_limit,
            in_panels=self._fits_panels(),
        )

    def shard(self, devices: Iterable[DeviceRef]) -> Sequence[Self]:
        """Splits the layer.

        Args:
            devices: The devices to split it over.

        Returns:
            A layer for each device.
        """
        devices = list(devices)
        shards = super().shard(devices)
        if loads_in_panels(self.config):
            # A weight with an alias is bound where it is, on the device; others MAX uploads.
            for name in ("_gate_up_weight", "_gate_up_scale", "_down_weight", "_down_scale"):
                stack = getattr(self, name)
                loaded = Weight(stack.name, stack.dtype, stack.shape, devices[0], _has_alias=True)
                setattr(self, name, loaded)
                setattr(shards[0], name, loaded)
            shards[0]._loaded_in_panels = True
        return shards

    def _fits_panels(self) -> bool:
        """Whether the fast kernels take both stacks, which go into panels together."""
        config = self.config
        return fits_panels(2 * config.intermediate_size, config.hidden_size) and fits_panels(
            config.hidden_size, config.intermediate_size
        )

    def _in_kernel_order(
        self, blocks: TensorValue, scales: TensorValue
    ) -> tuple[TensorValue, TensorValue]:
        """Brings a stack into panels where the fast kernels take it.

        A function of weights alone, so MAX computes it when it initializes the model, keeps
        the result in the place of the weights, and no step repeats it.
        """
        if self._fits_panels() and not self._loaded_in_panels:
            return mxfp4_moe_to_panels(blocks, scales)
        return blocks, scales

    def _forward_bf16(self, permuted_states: TensorValue, routing: RoutingInfo) -> TensorValue:
        if not self.grouped:
            return super()._forward_bf16(permuted_states, routing)
        return self._forward_grouped(
            permuted_states, self.gate_up_proj_transposed, self.down_proj_transposed, routing
        )

    def _forward_quantized(self, permuted_states: TensorValue, routing: RoutingInfo) -> TensorValue:
        if not self.grouped:
            return super()._forward_quantized(permuted_states, routing)
        return self._forward_grouped(
            permuted_states,
            mxfp4_dequant(self._gate_up_weight, self._gate_up_scale),
            mxfp4_dequant(self._down_weight, self._down_scale),
            routing,
        )

    def _forward_grouped(
        self,
        permuted_states: TensorValue,
        gate_up: TensorValue,
        down: TensorValue,
        routing: RoutingInfo,
    ) -> TensorValue:
        """The experts' projections by ``grouped_linear``.

        The stacks are functions of weights alone, so MAX computes them when it initializes
        the model, and no step repeats it.

        Args:
            permuted_states: bfloat16 ``[R, H]``, grouped by expert.
            gate_up: bfloat16 ``[E, 2 * I, H]``.
            down: bfloat16 ``[E, H, I]``.
            routing: The groups.

        Returns:
            bfloat16 ``[R, H]``.
        """
        groups = routing.expert_start_indices, routing.expert_ids
        gated = self._apply_gated_activation(
            grouped_linear(permuted_states, gate_up, *groups), routing
        )
        return self._apply_down_bias(grouped_linear(gated, down, *groups), routing)

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
