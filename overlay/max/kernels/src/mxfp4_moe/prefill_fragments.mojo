# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Expands packed MXFP4 into `wgmma` fragments, K in its natural order.

Activations come to `wgmma` as they lie in memory, so a fragment's register
must hold two neighbouring elements: one byte of codes. A quad shares a word of
eight codes, of which each lane takes its byte.
"""

from std.memory import bitcast
from std.sys import inlined_assembly

from .expand_sm90 import BlockScale, multiply_pairs

comptime _SIGNS = UInt32(0x8000_8000)
comptime _MAGNITUDES = UInt32(0x01C0_01C0)


@inline(.always)
def byte_selector(lane_in_quad: Int) -> UInt32:
    """Returns what selects a lane's byte of a word, for `expand_pair`.

    Args:
        lane_in_quad: 0 to 3.

    Returns:
        The selector of `prmt`: the byte, and zeros.
    """
    return UInt32(lane_in_quad) | 0x4440


@inline(.always)
def expand_pair[
    two_steps: Bool
](codes: UInt32, selector: UInt32, scale: BlockScale) -> UInt32:
    """Expands a lane's two neighbouring elements of a word.

    Parameters:
        two_steps: Whether scale bytes above 128 are to be expected.

    Args:
        codes: Eight elements of one row.
        selector: The lane's `byte_selector`.
        scale: The factors of their block.

    Returns:
        Two BF16, the first in the low half.
    """
    var byte = inlined_assembly[
        "prmt.b32 $0, $1, 0, $2;",
        UInt32,
        constraints="=r,r,r",
        has_side_effect=False,
    ](codes, selector)
    # Products, for they leave the unit alone that shifts and masks.
    var pair = ((byte * 0x0100_1000) & _SIGNS) | (
        (byte * 0x0004_0040) & _MAGNITUDES
    )
    pair = multiply_pairs(pair, scale.first)
    comptime if two_steps:
        pair = multiply_pairs(pair, scale.second)
    return pair


@inline(.always)
def expand_fragment[
    two_steps: Bool
](
    codes: SIMD[.uint32, 4],
    next_codes: SIMD[.uint32, 4],
    at: Int,
    selector: UInt32,
    scale: BlockScale,
    next_scale: BlockScale,
) -> SIMD[.bfloat16, 8]:
    """Expands a lane's part of A in `wgmma` m64k16.

    Parameters:
        two_steps: Whether scale bytes above 128 are to be expected.

    Args:
        codes: One block of the lane's first row.
        next_codes: One block of its second row, eight below in the fragment.
        at: Which half of the block: 0 or 1.
        selector: The lane's `byte_selector`.
        scale: The factors of the first row's block.
        next_scale: The factors of the second row's.

    Returns:
        The four registers: pairs of the first row and of the second, then of
        both eight elements further along K.
    """
    return bitcast[.bfloat16, 8](
        SIMD[.uint32, 4](
            expand_pair[two_steps](codes[2 * at], selector, scale),
            expand_pair[two_steps](next_codes[2 * at], selector, next_scale),
            expand_pair[two_steps](codes[2 * at + 1], selector, scale),
            expand_pair[two_steps](
                next_codes[2 * at + 1], selector, next_scale
            ),
        )
    )
