# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Expands packed MXFP4 into BF16 tensor-core fragments, in registers.

An E2M1 code's three magnitude bits, shifted under BF16's exponent so that they
fill its low two exponent bits and its top mantissa bit, are the BF16 number
`value * 2^-126`, the subnormal code included. One multiplication by
`2^126 * scale` therefore decodes and scales, exactly. That factor passes BF16's
range for scale bytes above 128, so those take a second multiplication.
"""

from std.memory import bitcast
from std.sys import inlined_assembly
from std.utils import StaticTuple

from .mxfp4 import E8M0_NAN
from .panel_word import PLACES, word_pairs

comptime _SPREAD_LOW = UInt32(1 << 12 | 1 << 6)
"""What brings a code's sign from bit 3, and its magnitude from bit 0, there."""

comptime _SPREAD_HIGH = UInt32(1 << 8 | 1 << 2)
"""The same from bits 7 and 4."""


@inline(.always)
def multiply_pairs(a: UInt32, b: UInt32) -> UInt32:
    """Multiplies two pairs of BF16.

    Args:
        a: A pair, the first in the low half.
        b: Another.

    Returns:
        The products, rounded to nearest even; subnormals count.
    """
    # As assembly, so that no compiler widens it to float32 and back.
    return inlined_assembly[
        "mul.rn.bf16x2 $0, $1, $2;",
        UInt32,
        constraints="=r,r,r",
        has_side_effect=False,
    ](a, b)


struct BlockScale(TrivialRegisterPassable):
    """The factors that decode and scale the elements of one block."""

    var first: UInt32
    """`2^126 * scale`, or 2^127 where that is too large, in both halves."""
    var second: UInt32
    """What is missing from `first`: 1, a power of two, or NaN."""

    comptime ZERO = Self(first=0, second=0)
    """What makes any element a zero."""

    @inline(.always)
    def __init__(out self, *, first: UInt32, second: UInt32):
        """Makes factors as they are given.

        Args:
            first: The first factor, in both halves.
            second: The second factor, in both halves.
        """
        self.first = first
        self.second = second

    @inline(.always)
    def __init__(out self, scale: UInt8):
        """Makes the factors of a scale byte.

        Args:
            scale: An E8M0 scale.
        """
        var exponent = UInt32(scale)
        # BF16 keeps its exponent, bias 127, in bits 7 to 14.
        self.first = (min(exponent, 128) + 126) << 7
        self.second = (max(exponent, 128) - 1) << 7
        if scale == E8M0_NAN:
            self.second = 0x7FFF
        self.first |= self.first << 16
        self.second |= self.second << 16


@inline(.always)
def expand_word[
    two_steps: Bool
](codes: UInt32, scale: BlockScale) -> SIMD[.uint32, 4]:
    """Expands eight neighbouring elements of one row.

    Parameters:
        two_steps: Whether scale bytes above 128 are to be expected.

    Args:
        codes: Elements 0 to 7 along K, element 0 in the lowest nibble.
        scale: The factors of their block.

    Returns:
        Four pairs of BF16: elements (0, 4), (1, 5), (2, 6) and (3, 7), the
        first of each in the low half. A sum over K does not mind the order,
        as long as the activations come in the same one: `pair_activations`.
    """
    # A product puts a code's sign and its magnitude in their places at once:
    # codes four bits wide, shifted by six bits less or more, do not overlap.
    var high = _shift_right[8](codes)
    var pairs = SIMD[.uint32, 4](
        ((codes & 0x000F_000F) * _SPREAD_LOW) & PLACES,
        ((codes & 0x00F0_00F0) * _SPREAD_HIGH) & PLACES,
        ((high & 0x000F_000F) * _SPREAD_LOW) & PLACES,
        ((high & 0x00F0_00F0) * _SPREAD_HIGH) & PLACES,
    )
    return _scale_pairs[two_steps](pairs, scale)


@inline(.always)
def expand_panel_words[
    two_steps: Bool
](words: SIMD[.uint32, 2], scales: UInt16) -> StaticTuple[SIMD[.uint32, 4], 2]:
    """Expands eight elements of two neighbouring features of a panel.

    Parameters:
        two_steps: Whether scale bytes above 128 are to be expected.

    Args:
        words: The features' words.
        scales: The E8M0 scales of their blocks, the first feature's in the low byte.

    Returns:
        For each feature, its word's four pairs of neighbouring elements, as BF16.
    """
    var first = word_pairs(words[0])
    var second = word_pairs(words[1])
    comptime if two_steps:
        first = _scale_pairs[True](first, BlockScale(UInt8(scales & 0xFF)))
        second = _scale_pairs[True](second, BlockScale(UInt8(scales >> 8)))
    else:
        # `2^126 * scale` of both features, made at once.
        var factors = _select[0x4140](UInt32(scales), 0) * 0x80 + 0x3F00_3F00
        comptime for i in range(4):
            first[i] = _multiply_by_half[0](first[i], factors)
            second[i] = _multiply_by_half[1](second[i], factors)
    return StaticTuple[SIMD[.uint32, 4], 2](first, second)


@inline(.always)
def fragment[
    half: Int
](first: SIMD[.uint32, 4], second: SIMD[.uint32, 4]) -> SIMD[.bfloat16, 8]:
    """Arranges a lane's part of A for 16 elements along K.

    Parameters:
        half: Which 16 elements of a block.

    Args:
        first: The expanded word of the lane's first feature.
        second: That of the one after it.

    Returns:
        Pairs of both features, then of both eight elements further along K, as
        `mma.sync` m16k16 and a warp's part of `wgmma` m64k16 take them.
    """
    return bitcast[.bfloat16, 8](
        SIMD[.uint32, 4](
            first[2 * half],
            second[2 * half],
            first[2 * half + 1],
            second[2 * half + 1],
        )
    )


@inline(.always)
def _multiply_by_half[half: Int](pair: UInt32, factors: UInt32) -> UInt32:
    # Written so that the assembler has one instruction for it.
    comptime factor = "%high" if half == 1 else "%low"
    return inlined_assembly[
        (
            "{ .reg .b16 %low, %high; .reg .b32 %both;"
            " mov.b32 {%low, %high}, $2;"
            + String(t" mov.b32 %both, {{{factor}, {factor}}};")
            + " mul.rn.bf16x2 $0, $1, %both; }"
        ),
        UInt32,
        constraints="=r,r,r",
        has_side_effect=False,
    ](pair, factors)


@inline(.always)
def _scale_pairs[
    two_steps: Bool
](pairs: SIMD[.uint32, 4], scale: BlockScale) -> SIMD[.uint32, 4]:
    var scaled = pairs
    comptime for i in range(4):
        scaled[i] = multiply_pairs(scaled[i], scale.first)
        comptime if two_steps:
            scaled[i] = multiply_pairs(scaled[i], scale.second)
    return scaled


@inline(.always)
def pair_activations(elements: SIMD[.uint32, 4]) -> SIMD[.uint32, 4]:
    """Reorders eight neighbouring BF16 activations as `expand_word` does.

    Args:
        elements: Elements 0 to 7 along K, as pairs (0, 1), (2, 3), (4, 5) and
            (6, 7).

    Returns:
        The pairs (0, 4), (1, 5), (2, 6) and (3, 7).
    """
    return SIMD[.uint32, 4](
        _select[0x5410](elements[0], elements[2]),
        _select[0x7632](elements[0], elements[2]),
        _select[0x5410](elements[1], elements[3]),
        _select[0x7632](elements[1], elements[3]),
    )


@inline(.always)
def _shift_right[bits: UInt32](word: UInt32) -> UInt32:
    # As assembly, so that no compiler merges it with the shift that follows.
    return inlined_assembly[
        "shr.b32 $0, $1, $2;",
        UInt32,
        constraints="=r,r,n",
        has_side_effect=False,
    ](word, bits)


@inline(.always)
def _select[selector: UInt32](low: UInt32, high: UInt32) -> UInt32:
    return inlined_assembly[
        "prmt.b32 $0, $1, $2, $3;",
        UInt32,
        constraints="=r,r,r,n",
        has_side_effect=False,
    ](low, high, selector)
