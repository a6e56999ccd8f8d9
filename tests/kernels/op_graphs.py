# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The kernel packages' ops on one device, as functions of NumPy arrays.

An op compiles once for each shape of its weights; tokens, rows and groups are symbolic. BF16
crosses the boundary as its bits, so nothing is rounded on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from max.driver import CPU, Buffer, Device
from max.dtype import DType
from max.engine import InferenceSession, Model
from max.graph import DeviceRef, Graph, TensorType, TensorValue

from max.nn import dense_linear, mxfp4_moe
from max.nn.mxfp4_moe import (
    ExpertStack,
    mxfp4_moe_combine,
    mxfp4_moe_down,
    mxfp4_moe_experts,
    mxfp4_moe_gate_up_swiglu,
    mxfp4_moe_matmul,
    mxfp4_moe_route,
    mxfp4_moe_select,
    mxfp4_moe_to_panels,
)
from reference.mxfp4 import from_bf16_bits, to_bf16_bits

Array = npt.NDArray[Any]


def to_buffer(array: Array, dtype: DType, device: Device) -> Buffer:
    """Copies an array to a device; to BF16 by rounding, which is exact for BF16 values."""
    if dtype != DType.bfloat16:
        return Buffer.from_numpy(np.ascontiguousarray(array, dtype.to_numpy())).to(device)
    bits = Buffer.from_numpy(to_bf16_bits(np.ascontiguousarray(array)))
    return bits.view(dtype, array.shape).to(device)


def from_buffer(buffer: Buffer) -> Array:
    """Copies a buffer to the host; BF16 widens to float32."""
    host = buffer.to(CPU())
    if host.dtype != DType.bfloat16:
        return host.to_numpy()
    return from_bf16_bits(host.view(DType.uint16, host.shape).to_numpy())


def _experts(
    hidden: TensorValue, logits: TensorValue, *stacks: TensorValue, top_k: int, in_panels: bool
) -> TensorValue:
    gate_up, down = ExpertStack(*stacks[:3]), ExpertStack(*stacks[3:])
    return mxfp4_moe_experts(hidden, logits, gate_up, down, top_k=top_k, in_panels=in_panels)


class OpGraphs:
    """The ops of the kernel packages, compiled for one device.

    Args:
        device: MAX's CPU, or a Hopper GPU.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.is_gpu = not device.is_host
        self._ref = DeviceRef.from_device(device)
        self._session = InferenceSession(devices=[device])
        self._compiled = lru_cache(maxsize=None)(self._compile)

    def _compile(
        self,
        op: Callable[..., TensorValue | Iterable[TensorValue]],
        inputs: tuple[tuple[DType, tuple[str | int, ...]], ...],
        options: tuple[tuple[str, int], ...],
    ) -> Model:
        types = [TensorType(dtype, list(shape), device=self._ref) for dtype, shape in inputs]
        packages = [mxfp4_moe.kernel_package_path(), dense_linear.kernel_package_path()]
        with Graph(op.__name__, input_types=types, custom_extensions=packages) as g:
            result = op(*(value.tensor for value in g.inputs), **dict(options))
            g.output(*((result,) if isinstance(result, TensorValue) else result))
        return self._session.load(g)

    def _run(
        self,
        op: Callable[..., TensorValue | Iterable[TensorValue]],
        *operands: tuple[Array, DType, tuple[str | int, ...]],
        **options: int,
    ) -> list[Array]:
        inputs = tuple((dtype, shape) for _, dtype, shape in operands)
        model = self._compiled(op, inputs, tuple(options.items()))
        buffers = [to_buffer(array, dtype, self._device) for array, dtype, _ in operands]
        return [from_buffer(output) for output in model.execute(*buffers)]

    def route(self, topk_ids: Array, experts: int) -> list[Array]:
        """``mxfp4_moe_route``: ids ``[T, k]`` to order, starts and ids."""
        return self._run(
            mxfp4_moe_route,
            (topk_ids, DType.int32, ("tokens", topk_ids.shape[1])),
            num_experts=experts,
        )

    def select(self, logits: Array, *, top_k: int) -> list[Array]:
        """``mxfp4_moe_select``: logits ``[T, E]`` to weights, order, starts and ids."""
        return self._run(
            mxfp4_moe_select,
            (logits, DType.bfloat16, ("tokens", logits.shape[1])),
            top_k=top_k,
        )

    def to_panels(self, blocks: Array, scales: Array) -> list[Array]:
        """``mxfp4_moe_to_panels``: blocks and scales in the checkpoint's order to panels."""
        return self._run(
            mxfp4_moe_to_panels,
            (blocks, DType.uint8, blocks.shape),
            (scales, DType.uint8, scales.shape),
        )

    def matmul(
        self,
        activations: Array,
        blocks: Array,
        scales: Array,
        starts: Array,
        ids: Array,
        *,
        in_panels: bool = False,
    ) -> Array:
        """``mxfp4_moe_matmul``: BF16 values ``[R, K]`` to ``[R, N]``."""
        [result] = self._run(
            mxfp4_moe_matmul,
            (activations, DType.bfloat16, ("rows", activations.shape[1])),
            (blocks, DType.uint8, blocks.shape),
            (scales, DType.uint8, scales.shape),
            (starts, DType.uint32, (len(starts),)),
            (ids, DType.int32, (len(ids),)),
            in_panels=in_panels,
        )
        return result

    def gate_up_swiglu(
        self,
        hidden: Array,
        order: Array,
        blocks: Array,
        scales: Array,
        bias: Array,
        starts: Array,
        ids: Array,
        *,
        top_k: int,
        in_panels: bool = False,
    ) -> Array:
        """``mxfp4_moe_gate_up_swiglu``: BF16 values ``[T, H]`` to ``[R, I]``."""
        [result] = self._run(
            mxfp4_moe_gate_up_swiglu,
            (hidden, DType.bfloat16, ("tokens", hidden.shape[1])),
            (order, DType.uint32, ("rows",)),
            (blocks, DType.uint8, blocks.shape),
            (scales, DType.uint8, scales.shape),
            (bias, DType.bfloat16, bias.shape),
            (starts, DType.uint32, (len(starts),)),
            (ids, DType.int32, (len(ids),)),
            top_k=top_k,
            in_panels=in_panels,
        )
        return result

    def down(
        self,
        gated: Array,
        order: Array,
        blocks: Array,
        scales: Array,
        bias: Array,
        router_weights: Array,
        starts: Array,
        ids: Array,
        *,
        in_panels: bool = False,
    ) -> Array:
        """``mxfp4_moe_down``: BF16 values ``[R, I]`` to ``[R, H]`` in slot order."""
        [result] = self._run(
            mxfp4_moe_down,
            (gated, DType.bfloat16, ("rows", gated.shape[1])),
            (order, DType.uint32, ("rows",)),
            (blocks, DType.uint8, blocks.shape),
            (scales, DType.uint8, scales.shape),
            (bias, DType.bfloat16, bias.shape),
            (router_weights, DType.float32, ("tokens", router_weights.shape[1])),
            (starts, DType.uint32, (len(starts),)),
            (ids, DType.int32, (len(ids),)),
            in_panels=in_panels,
        )
        return result

    def combine(self, weighted: Array, *, top_k: int) -> Array:
        """``mxfp4_moe_combine``: BF16 values ``[R, H]`` to ``[T, H]``."""
        [result] = self._run(
            mxfp4_moe_combine,
            (weighted, DType.bfloat16, ("rows", weighted.shape[1])),
            top_k=top_k,
        )
        return result

    def experts(
        self,
        hidden: Array,
        logits: Array,
        gate_up: Sequence[Array],
        down: Sequence[Array],
        *,
        top_k: int,
        in_panels: bool = False,
    ) -> Array:
        """``mxfp4_moe_experts``: BF16 values ``[T, H]`` and logits ``[T, E]`` to ``[T, H]``."""
        dtypes = (DType.uint8, DType.uint8, DType.bfloat16)
        stacks = [
            (array, dtype, array.shape)
            for stack in (gate_up, down)
            for array, dtype in zip(stack, dtypes, strict=True)
        ]
        [result] = self._run(
            _experts,
            (hidden, DType.bfloat16, ("tokens", hidden.shape[1])),
            (logits, DType.bfloat16, ("tokens", logits.shape[1])),
            *stacks,
            top_k=top_k,
            in_panels=in_panels,
        )
        return result

    def dense_linear(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """``dense_linear``: BF16 values ``[T, K]`` to ``[T, N]``."""
        operands = [
            (x, DType.bfloat16, ("tokens", x.shape[1])),
            (weight, DType.bfloat16, weight.shape),
        ]
        if bias is not None:
            operands.append((bias, DType.bfloat16, bias.shape))
        [result] = self._run(dense_linear.dense_linear, *operands)
        return result

    def grouped_linear(self, x: Array, weight: Array, starts: Array, ids: Array) -> Array:
        """``grouped_linear``: BF16 values ``[R, K]`` to ``[R, N]``."""
        [result] = self._run(
            dense_linear.grouped_linear,
            (x, DType.bfloat16, ("rows", x.shape[1])),
            (weight, DType.bfloat16, weight.shape),
            (starts, DType.uint32, (len(starts),)),
            (ids, DType.int32, (len(ids),)),
        )
        return result
