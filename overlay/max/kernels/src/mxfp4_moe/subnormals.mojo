# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Subnormal numbers on the CPU.

The smallest scales make subnormal weights. The engine's worker threads flush
subnormals to zero, and so do the x86 instructions that round to BF16; the
specification must not.
"""

from std.memory import bitcast
from std.sys import CompilationTarget, inlined_assembly, is_gpu

comptime _FLUSH_TO_ZERO = UInt32(1 << 15)
comptime _DENORMALS_ARE_ZERO = UInt32(1 << 6)


@fieldwise_init
struct KeepSubnormals(Movable):
    """Turns flushing off in this thread, for as long as the context lasts.

    What is computed inside belongs into a function that is not inlined, or
    the compiler may move it out. Does nothing but on x86.
    """

    var _saved: UInt32

    def __init__(out self):
        """Remembers how the thread treats subnormals."""
        self._saved = _read_mxcsr()

    def __enter__(self):
        """Turns flushing off."""
        _write_mxcsr(self._saved & ~(_FLUSH_TO_ZERO | _DENORMALS_ARE_ZERO))

    def __exit__(self):
        """Restores the thread."""
        _write_mxcsr(self._saved)


def _read_mxcsr() -> UInt32:
    var register = Array[UInt32, 1](fill=0)
    comptime if CompilationTarget.is_x86():
        inlined_assembly["stmxcsr ($0)", NoneType, constraints="r,~{memory}"](
            register.unsafe_ptr()
        )
    return register[0]


def _write_mxcsr(value: UInt32):
    var register = Array[UInt32, 1](fill=value)
    comptime if CompilationTarget.is_x86():
        inlined_assembly["ldmxcsr ($0)", NoneType, constraints="r,~{memory}"](
            register.unsafe_ptr()
        )


@inline(.always)
def round_to_bf16[
    width: SIMDLength, //
](values: SIMD[.float32, width]) -> SIMD[.bfloat16, width]:
    """Rounds to the nearest BF16, ties to even, subnormals included.

    Parameters:
        width: Numbers.

    Args:
        values: What to round.

    Returns:
        The rounded numbers; a NaN stays one.
    """
    comptime if is_gpu():
        return values.cast[.bfloat16]()
    else:
        var bits = bitcast[.uint32, width](values)
        var rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        var is_nan = (bits & 0x7FFF_FFFF).gt(0x7F80_0000)
        return bitcast[.bfloat16, width](
            is_nan.select((bits >> 16) | 0x0040, rounded).cast[.uint16]()
        )
