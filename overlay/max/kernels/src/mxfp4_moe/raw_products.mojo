# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Products of unpacked weights that nothing has scaled.

`word_pairs` leaves `value * 2^-126` in BF16. Activations are taken times 2^64, so
that products of both are ordinary float32 numbers, if activations lie between
2^-64 and 2^63, as those of a network do. A sum of products is scaled by
`2^62 * scale`.
"""

from std.memory import bitcast
from std.sys import inlined_assembly

from max.gpu.compute.mma import mma

from .expand_sm90 import fragment, multiply_pairs
from .mxfp4 import E8M0_NAN
from .panel_word import word_pairs

comptime ENLARGEMENT = Float32(18446744073709551616)
"""What activations are multiplied by: 2^64."""

comptime _ENLARGEMENT_PAIR = UInt32(0x5F80_5F80)
# The same, as two BF16.

comptime _EXPONENT = 23
# Where float32 keeps its exponent.

comptime _LARGE = UInt32(128)
# Scale bytes over this take a second factor.

comptime _FIRST = UInt32(62)
# What an exponent has more than a scale byte, which has the same bias.

comptime _ONE = UInt32(127)
# The exponent of 1.


@inline(.always)
def enlarge(activations: SIMD[.bfloat16, 8]) -> SIMD[.bfloat16, 8]:
    """Multiplies a lane's activations by 2^64.

    Args:
        activations: Four pairs.

    Returns:
        The products.
    """
    var pairs = bitcast[.uint32, 4](activations)
    comptime for i in range(4):
        pairs[i] = multiply_pairs(pairs[i], _ENLARGEMENT_PAIR)
    return bitcast[.bfloat16, 8](pairs)


@inline(.always)
def raw_product(
    words: SIMD[.uint32, 2], activations: SIMD[.bfloat16, 8]
) -> SIMD[.float32, 4]:
    """Multiplies a block of a panel, with a whole warp.

    Args:
        words: The lane's two words of the block.
        activations: Its four pairs, enlarged.

    Returns:
        The lane's sums: two columns of one feature, then of the next.
    """
    var even = word_pairs(words[0])
    var odd = word_pairs(words[1])
    var sum = SIMD[.float32, 4](0)
    comptime for half in range(2):
        mma(
            sum,
            fragment[half](even, odd),
            activations.slice[4, offset=4 * half](),
            sum,
        )
    return sum


@inline(.always)
def add_scaled[
    *, two_steps: Bool
](
    mut sums: SIMD[.float32, 2],
    scales: SIMD[.uint8, 2],
    product: SIMD[.float32, 2],
    mine: Bool,
):
    """Adds the products of one block and two features, if they are the lane's own.

    Parameters:
        two_steps: Whether scale bytes above 128 are to be expected.

    Args:
        sums: The sums of both features.
        scales: The features' E8M0 scales.
        product: What is added.
        mine: Whether it is.
    """
    comptime for i in range(2):
        var exponent = UInt32(scales[i])
        comptime if two_steps:
            var first = _power(min(exponent, _LARGE) + _FIRST)
            var second = _power(max(exponent, _LARGE) - _LARGE + _ONE)
            if scales[i] == E8M0_NAN:
                second = bitcast[.float32](UInt32(0x7FFF_FFFF))
            sums[i] = _add_if(mine, sums[i], product[i] * first, second)
        else:
            sums[i] = _add_if(
                mine, sums[i], product[i], _power(exponent + _FIRST)
            )


@inline(.always)
def _power(exponent: UInt32) -> Float32:
    return bitcast[.float32](exponent << UInt32(_EXPONENT))


@inline(.always)
def _add_if(
    condition: Bool, sum: Float32, product: Float32, factor: Float32
) -> Float32:
    # As assembly, so that it becomes one instruction, and a condition that many
    # share one comparison.
    return inlined_assembly[
        (
            "{ .reg .pred %mine; setp.ne.u32 %mine, $4, 0; mov.f32 $0, $1;"
            " @%mine fma.rn.f32 $0, $2, $3, $1; }"
        ),
        Float32,
        constraints="=f,f,f,f,r",
        has_side_effect=False,
    ](sum, product, factor, UInt32(condition))
