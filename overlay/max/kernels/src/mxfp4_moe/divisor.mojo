# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Division by numbers that the host knows before a launch.

A GPU has no instruction for it, and what stands in for that makes a thread wait for
some 150 cycles. A multiplication with a reciprocal takes a sixth of that.
"""

from std.sys import inlined_assembly

from .kernel_argument import KernelArgument


struct Divisor(KernelArgument):
    """A number to divide by."""

    comptime NAME = StaticString("divisor")
    """The word for it."""

    var value: Int32
    """The number, at least 1."""
    var reciprocal: UInt32
    """`(2^32 - 1) / value`, rounded down."""

    @inline(.always)
    def __init__(out self, value: Int):
        """Makes a divisor, on the host.

        Args:
            value: The number, at least 1.
        """
        self.value = Int32(value)
        self.reciprocal = UInt32(0xFFFF_FFFF // value)

    @inline(.always)
    def quotient(self, number: Int32) -> Int32:
        """Divides, and rounds down.

        Args:
            number: What is divided, not negative.

        Returns:
            The quotient.
        """
        # The product is less than `number / value` by one at most.
        var quotient = UInt32(
            (UInt64(UInt32(number)) * UInt64(self.reciprocal)) >> 32
        )
        var rest = UInt32(number) - quotient * UInt32(self.value)
        return Int32(quotient + UInt32(rest >= UInt32(self.value)))

    @inline(.always)
    def quotient_up(self, number: Int32) -> Int32:
        """Divides, and rounds up.

        Args:
            number: What is divided, not negative; with `value` more it is less than
                2^31.

        Returns:
            The quotient.
        """
        return self.quotient(number + self.value - 1)


@inline(.always)
def small_quotient(number: Int32, divisor: Int32) -> Int32:
    """Divides small numbers on the GPU, and rounds down.

    Args:
        number: What is divided, from 0 to 2^20.
        divisor: What by, at least 1.

    Returns:
        The quotient.
    """
    # As assembly with an effect, so that no compiler divides where a branch would not.
    var reciprocal = inlined_assembly[
        "rcp.approx.ftz.f32 $0, $1;",
        Float32,
        constraints="=f,f",
        has_side_effect=True,
    ](Float32(divisor))
    # What the reciprocal is wrong by does not reach the half.
    return Int32((Float32(number) + 0.5) * reciprocal)
