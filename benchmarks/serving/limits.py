# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the hardware allows a decode step: reading its bytes from device memory once."""

from __future__ import annotations

from checkpoint.shapes import Kind, Shapes

SLIDING_WINDOW = 128
"""Tokens that every other layer attends to."""

_BFLOAT16 = 2


def limit_tokens_per_s(shapes: Shapes, batch: int, context: int, copy_tb_per_s: float) -> float:
    """Tokens a second of a step that reads its bytes at the rate of a large copy.

    Args:
        shapes: The model's sizes.
        batch: Sequences of the step.
        context: Tokens that each sequence attends to.
        copy_tb_per_s: Bytes read and written by a copy within device memory, in TB/s.
    """
    return batch * copy_tb_per_s * 1e12 / step_bytes(shapes, batch, context)


def step_bytes(shapes: Shapes, batch: int, context: int) -> float:
    """Bytes that a decode step has to read, with uniform random routing.

    Weights, each once: of the experts those that a token of the batch is expected to be routed
    to, of the embedding the tokens' rows. And the keys and values of all sequences.
    """
    active = 1 - (1 - shapes.top_k / shapes.experts) ** batch
    weights = 0.0
    for spec in shapes.tensors():
        if ".experts." in spec.name:
            weights += active * spec.nbytes
        elif spec.kind is Kind.EMBEDDING:
            weights += batch * shapes.hidden * _BFLOAT16
        else:
            weights += spec.nbytes
    sliding = (shapes.layers + 1) // 2
    attended = sliding * min(context, SLIDING_WINDOW) + (shapes.layers - sliding) * context
    cache = batch * attended * 2 * shapes.kv_heads * shapes.head_dim * _BFLOAT16
    return weights + cache
