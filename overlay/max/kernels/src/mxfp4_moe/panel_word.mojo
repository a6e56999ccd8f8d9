# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""How a word of a panel keeps eight E2M1 codes: ready to become BF16 pairs.

A kernel wants pairs of BF16 with a code's sign at bit 15 and its magnitude at
bits 8 to 6 of each half (`expand_sm90.mojo` tells why there). With codes in
nibbles, each pair would take a mask, a product and a mask. Here one mask is
enough:

    pair 0:   word                         & PLACES
    pair 1:   word << 6                    & PLACES
    pair 2:   word rotated left by 12      & PLACES
    pair 3: ((word << 2) ^ (word >> 6))    & PLACES

The four together depend on every bit of the word, so it has room for all codes
and the equations can be solved: `pack_word`. Four shifts are the fewest: with
three, whether they shift, rotate or permute bytes, and of whatever, bits meet
under the mask, and an exclusive or between two of the four does not help.
"""

from std.bit import rotate_bits_left, rotate_bits_right

comptime PLACES = UInt32(0x81C0_81C0)
"""Where a pair's signs and magnitudes lie."""


@inline(.always)
def word_pairs(word: UInt32) -> SIMD[.uint32, 4]:
    """Brings the codes of a word into their places.

    Args:
        word: A word of a panel.

    Returns:
        Four pairs, with nothing but zeros besides the codes.
    """
    return SIMD[.uint32, 4](
        word & PLACES,
        (word << 6) & PLACES,
        rotate_bits_left[12](word) & PLACES,
        ((word << 2) ^ (word >> 6)) & PLACES,
    )


@inline(.always)
def pack_word(pairs: SIMD[.uint32, 4]) -> UInt32:
    """Makes the word that has these pairs: the inverse of `word_pairs`.

    Args:
        pairs: Four pairs with their codes in place.

    Returns:
        The word.
    """
    # Three pairs are bits as they are. Where two bits meet in the fourth, one of them
    # is known by then.
    var word = pairs[0] | (pairs[1] >> 6) | rotate_bits_right[12](pairs[2])
    var rest = pairs[3] ^ (((word << 2) ^ (word >> 6)) & PLACES)
    word |= (rest & 0x8040_0040) >> 2 | (rest & 0x0100_0100) << 6
    comptime for step in range(3):
        comptime bit = UInt32(1) << UInt32(23 - 8 * step)
        word |= ((rest ^ (word >> 6)) & bit) >> 2
    return word


@inline(.always)
def place_code(code: UInt32) -> UInt32:
    """Puts a code in the places of the low half of a pair.

    Args:
        code: An E2M1 code, 0 to 15.

    Returns:
        Its sign at bit 15, its magnitude at bits 8 to 6.
    """
    return (code & 8) << 12 | (code & 7) << 6


@inline(.always)
def code_at(pair: UInt32) -> UInt8:
    """Reads the code of the low half of a pair: the inverse of `place_code`.

    Args:
        pair: A pair.

    Returns:
        The code.
    """
    return UInt8(pair >> 12 & 8 | pair >> 6 & 7)
