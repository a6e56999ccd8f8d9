# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The order of packed weights that Hopper's kernels read, in NumPy.

Sixteen neighbouring rows of an expert are a panel. Within the bytes that these rows have in the
checkpoint's order, a panel's blocks of 32 elements follow each other along K, 256 bytes each, and
so do their scales, 16 bytes each. The words of a block are ordered by feature pair (8), quarter (4)
and feature of the pair (2). A quarter's word has two of each eight neighbouring elements along K:
pair ``i`` are the elements ``8 * i + 2 * quarter`` and the next one.

Which bits of the word are whose follows from how a kernel takes pair ``i`` out of it, with the sign
of a code at bit 15 and its magnitude at bits 8 to 6 of each half: ``word_pairs``.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from reference.mxfp4 import Uint8Array

Uint32Array: TypeAlias = npt.NDArray[np.uint32]

PANEL_ROWS = 16
"""Rows of a panel."""

PLACES = np.uint32(0x81C0_81C0)
"""Where a pair has its two codes."""


def word_pairs(words: Uint32Array) -> Uint32Array:
    """Take the pairs out of words.

    Args:
        words: uint32 of any shape.

    Returns:
        uint32 ``[..., 4]``, the codes of a pair at ``PLACES`` and zeros elsewhere.
    """
    rotated = (words << 12) | (words >> 20)
    pairs = [words, words << 6, rotated, (words << 2) ^ (words >> 6)]
    return np.stack(pairs, axis=-1) & PLACES


def _code_bits() -> Uint32Array:
    # What each bit of each code sets in a word, ``[pair, half, bit]``: the inverse of `word_pairs`,
    # which is linear over exclusive or, by Gaussian elimination.
    ones = np.uint32(1) << np.arange(32, dtype=np.uint32)
    places = np.array([[16 * half + bit for bit in (6, 7, 8, 15)] for half in (0, 1)])
    taken = word_pairs(ones)[:, :, None, None] >> places & 1
    equations = taken.reshape(32, 32).T.astype(bool)
    inverse = np.eye(32, dtype=bool)
    for column in range(32):
        pivot = column + int(np.argmax(equations[column:, column]))
        for matrix in (equations, inverse):
            matrix[[column, pivot]] = matrix[[pivot, column]]
        others = equations[:, column].copy()
        others[column] = False
        equations[others] ^= equations[column]
        inverse[others] ^= inverse[column]
    columns: Uint32Array = (inverse.T.astype(np.uint32) * ones).sum(axis=1, dtype=np.uint32)
    return columns.reshape(4, 2, 4)


def to_panels(blocks: Uint8Array, scales: Uint8Array) -> tuple[Uint8Array, Uint8Array]:
    """Bring an expert stack from the checkpoint's order into panels.

    Args:
        blocks: uint8 ``[E, N, K / 2]``, two codes a byte, N a multiple of 16.
        scales: uint8 ``[E, N, K / 32]``.

    Returns:
        Both in panels, of the same shapes.

    Raises:
        ValueError: N is no multiple of 16.
    """
    experts, rows, row_blocks = scales.shape
    if rows % PANEL_ROWS:
        raise ValueError(f"{rows} rows an expert are no whole panels of {PANEL_ROWS}")
    panels = rows // PANEL_ROWS
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1)
    # Expert, panel, pair, feature of the pair, block, i, quarter, element of the two.
    split = codes.reshape(experts, panels, 8, 2, row_blocks, 4, 4, 2)
    # ... block, pair of features, quarter, feature, pair of elements, element.
    ordered = split.transpose(0, 1, 4, 2, 6, 3, 5, 7)
    bits = ordered[..., None].astype(np.uint32) >> np.arange(4, dtype=np.uint32) & 1
    words = np.bitwise_xor.reduce((bits * _code_bits()).reshape(-1, 32), axis=-1)
    panel_scales = scales.reshape(experts, panels, PANEL_ROWS, row_blocks).swapaxes(2, 3)
    panel_blocks = words.astype("<u4").view(np.uint8).reshape(blocks.shape)
    return panel_blocks, panel_scales.reshape(scales.shape)
