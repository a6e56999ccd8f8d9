# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Times vLLM's Marlin MXFP4 MoE, padded as vLLM pads it.

usage: python -m moe_layer.peers.marlin_layer FOLDER EXPERTS

FOLDER holds ``_moe_C_stable_libtorch.abi3.so`` and ``scalar_type.py``. Timed is gate/up + bias,
SwiGLU, down + bias + weight, and the sum over choices. The weights are random bytes in Marlin's
shapes: their order does not change the time.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl

from moe_layer.peers.timing import Layers, time_peer
from moe_layer.shapes import TOP_K

LIBRARY = "_moe_C_stable_libtorch.abi3.so"
HIDDEN = 3072
WIDTH = 2944
SWIGLU_BLOCK = 1024

Aligned = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Slots sorted by expert and padded to blocks, the expert of each block, and their number."""


@triton.jit  # type: ignore[misc, untyped-decorator, unused-ignore]
def _swiglu(sums, gated, width: tl.constexpr, block: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0)
    column = tl.program_id(1) * block + tl.arange(0, block)
    mask = column < width
    pair = sums + row * 2 * width + 2 * column
    gate = tl.minimum(tl.load(pair, mask, 0).to(tl.float32), 7.0)
    up = tl.load(pair + 1, mask, 0).to(tl.float32)
    up = tl.minimum(tl.maximum(up, -7.0), 7.0)
    activated = gate * tl.sigmoid(1.702 * gate) * (up + 1)
    tl.store(gated + row * width + column, activated.to(tl.bfloat16), mask)


@dataclass(frozen=True)
class Stack:
    """Random packed weights, scales and biases of one projection."""

    blocks: torch.Tensor
    scales: torch.Tensor
    bias: torch.Tensor
    features: int
    depth: int

    @classmethod
    def random(cls, experts: int, features: int, depth: int) -> Stack:
        """Draws one on the GPU."""
        low, high = -(2**31), 2**31 - 1
        packed = (experts, depth // 16, features * 2)
        scales = torch.randint(
            119, 124, (experts, depth // 32, features), device="cuda", dtype=torch.uint8
        )
        return cls(
            torch.randint(low, high, packed, device="cuda", dtype=torch.int32),
            scales.view(torch.float8_e8m0fnu),
            torch.randn(experts, features, device="cuda", dtype=torch.bfloat16) * 0.1,
            features,
            depth,
        )


class MarlinLayer:
    """A layer of random weights."""

    def __init__(self, experts: int, fp4: int) -> None:
        self.experts = experts
        self.fp4 = fp4
        self.gate_up = Stack.random(experts, 2 * WIDTH, HIDDEN)
        self.down = Stack.random(experts, HIDDEN, WIDTH)
        processors = torch.cuda.get_device_properties(0).multi_processor_count
        self.workspace = torch.zeros(processors * 4, device="cuda", dtype=torch.int32)

    def prepare(self, choices: list[torch.Tensor]) -> Layers:
        """Sorts by expert, and takes the memory that the layers work in."""
        tokens = choices[0].shape[0]
        rows = tokens * TOP_K
        block = self._block(rows)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

        hidden = [noise(tokens, HIDDEN) for _ in choices]
        plans = [self._align(chosen, block) for chosen in choices]
        weights = torch.rand(tokens, TOP_K, device="cuda")
        sums, gated = noise(rows, 2 * WIDTH), noise(rows, WIDTH)
        weighted, output = noise(rows, HIDDEN), noise(tokens, HIDDEN)

        def layers() -> None:
            for x, plan in zip(hidden, plans, strict=True):
                routed = (*plan, weights, block)
                self._matmul(x, sums, self.gate_up, (*routed, TOP_K, False), tokens)
                grid = (rows, triton.cdiv(WIDTH, SWIGLU_BLOCK))
                _swiglu[grid](sums, gated, WIDTH, SWIGLU_BLOCK)
                self._matmul(gated, weighted, self.down, (*routed, 1, True), rows)
                torch.ops._moe_C.moe_sum(weighted.view(tokens, TOP_K, HIDDEN), output)

        return layers

    def _block(self, rows: int) -> int:
        """Rows a block, by vLLM's rule."""
        sizes = (8, 16, 32, 48, 64)
        return next((size for size in sizes if rows / self.experts / size < 0.9), sizes[-1])

    def _align(self, choices: torch.Tensor, block: int) -> Aligned:
        slots = choices.numel()
        padded = slots + self.experts * (block - 1)
        if slots < self.experts:
            padded = min(slots * block, padded)
        order = torch.empty(padded, dtype=torch.int32, device="cuda")
        ids = torch.empty(triton.cdiv(padded, block), dtype=torch.int32, device="cuda")
        total = torch.empty(1, dtype=torch.int32, device="cuda")
        align = torch.ops._moe_C.moe_align_block_size
        align(choices, self.experts, block, order, ids, total, None)
        return order, ids, total

    def _matmul(
        self,
        activations: torch.Tensor,
        output: torch.Tensor,
        stack: Stack,
        routed: tuple[Any, ...],
        rows: int,
    ) -> None:
        # Global scale, zero points, group index and permutation; then the flags is_k_full,
        # use_atomic_add, use_fp32_reduce and is_zp_float, and three sizes for it to choose.
        torch.ops._moe_C.moe_wna16_marlin_gemm(
            *(activations, output, stack.blocks, stack.bias, stack.scales),
            *(None, None, None, self.workspace),
            *routed,
            *(self.fp4, rows, stack.features, stack.depth),
            *(False, True, False, -1, -1, -1),
        )


def _fp4_id(folder: Path) -> int:
    """vLLM's number for the E2M1 type, from its own module."""
    spec = importlib.util.spec_from_file_location("scalar_type", folder / "scalar_type.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scalar_type"] = module
    spec.loader.exec_module(module)
    return int(module.scalar_types.float4_e2m1f.id)


def main(folder: Path, experts: int) -> None:
    """Print the times of one number of experts."""
    torch.manual_seed(0)
    torch.ops.load_library(str(folder / LIBRARY))
    time_peer(experts, MarlinLayer(experts, _fp4_id(folder)).prepare)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
