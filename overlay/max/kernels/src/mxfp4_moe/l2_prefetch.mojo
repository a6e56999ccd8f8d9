# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Bringing memory into L2 ahead of its use.

What is written until it is read is written in L2 too. So a kernel may ask for what
the kernel before it is still to write, if that is not read through L1.
"""

from std.sys import inlined_assembly

from .kernel_argument import TensorPointer

comptime CACHE_LINE_BYTES = 128
"""What a request for a line brings."""


@inline(.always)
def prefetch_to_l2[T: AnyType](place: TensorPointer[T]):
    """Asks for a cache line.

    Parameters:
        T: What lies there.

    Args:
        place: An address in the line, in device memory.
    """
    inlined_assembly[
        "prefetch.global.L2 [$0];",
        NoneType,
        constraints="l",
        has_side_effect=True,
    ](UInt64(Int(place)))


@inline(.always)
def prefetch_run_to_l2(source: TensorPointer[UInt8], bytes: Int32):
    """Asks for bytes that follow each other, with one request.

    Args:
        source: The first, in device memory, at a multiple of 16 bytes.
        bytes: How many, a multiple of 16.
    """
    inlined_assembly[
        "cp.async.bulk.prefetch.L2.global [$0], $1;",
        NoneType,
        constraints="l,r",
        has_side_effect=True,
    ](UInt64(Int(source)), bytes)
