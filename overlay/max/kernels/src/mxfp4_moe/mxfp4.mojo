# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The MXFP4 number format: E2M1 elements in blocks of 32 that share one E8M0 scale.

Source: OCP Microscaling Formats (MX) Specification v1.0, sections 5.3.3 (FP4
E2M1), 5.4.1 (E8M0) and 6.3 (MXFP4). A byte holds two elements, the one with
the even index along K in its low nibble.
"""

from std.memory import bitcast

comptime BLOCK_ELEMENTS = 32
"""Elements along K that share one scale."""

comptime BLOCK_BYTES = BLOCK_ELEMENTS // 2
"""Packed bytes of one block: the width of one vector load."""

comptime E8M0_NAN = UInt8(255)
"""The one scale byte that is not a power of two."""


@inline(.always)
def decode_e2m1(code: UInt8) -> Float32:
    """Decodes one E2M1 element.

    Args:
        code: The element in the low four bits: sign, two exponent bits with
            bias 1, one mantissa bit.

    Returns:
        One of 0, 0.5, 1, 1.5, 2, 3, 4, 6 or its negative, -0 included.
    """
    var exponent = Int((code >> 1) & 3)
    var mantissa = Float32(Int(code & 1))
    var magnitude = mantissa * 0.5 if exponent == 0 else (
        1 + mantissa * 0.5
    ) * Float32(1 << (exponent - 1))
    return -magnitude if code & 8 else magnitude


@inline(.always)
def decode_e8m0(scale: UInt8) -> Float32:
    """Decodes one E8M0 scale.

    Args:
        scale: The biased exponent.

    Returns:
        2^(scale - 127), which float32 holds exactly (2^-127 as a subnormal);
        NaN for 255.
    """
    # Float32 keeps its exponent where BF16 does, 16 bits further up.
    return bitcast[.float32](UInt32(e8m0_to_bf16_bits(scale)) << 16)


@inline(.always)
def e8m0_to_bf16_bits(scale: UInt8) -> UInt16:
    """Returns the bits of the BF16 that equals an E8M0 scale.

    Args:
        scale: The biased exponent.

    Returns:
        The scale as BF16 bits: the same exponent field, except that 2^-127 is
        subnormal and that 255 is NaN where the field alone means infinity.
    """
    if scale == E8M0_NAN:
        return 0x7FFF
    if scale == 0:
        return 0x0040
    return UInt16(scale) << 7
