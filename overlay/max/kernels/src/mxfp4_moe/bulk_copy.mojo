# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Copies of contiguous bytes by Hopper's copy engine, and prefetches.

One lane starts a copy of any size, and a barrier in shared memory counts the
bytes that have come. MAX 26.7.0 wraps this instruction for Blackwell alone.
"""

from std.memory import Pointer
from std.sys import inlined_assembly

from layout.tma_async import SharedMemBarrier

from .kernel_argument import TensorPointer

comptime SharedPointer[T: AnyType] = Pointer[
    T, MutUntrackedOrigin, address_space=.SHARED
]
"""A place in a thread block's shared memory.

Parameters:
    T: What lies there.
"""


@inline(.always)
def bulk_copy(
    target: SharedPointer[UInt8],
    source: TensorPointer[UInt8],
    bytes: Int32,
    barrier: SharedPointer[SharedMemBarrier],
):
    """Starts a copy from global to shared memory.

    Args:
        target: Where to, at a multiple of 16 bytes.
        source: Where from, likewise.
        bytes: How many, a multiple of 16.
        barrier: What counts them, and was told to expect them.
    """
    inlined_assembly[
        (
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
            " [$0], [$1], $2, [$3];"
        ),
        NoneType,
        constraints="r,l,r,r,~{memory}",
        has_side_effect=True,
    ](
        UInt32(Int(target)),
        UInt64(Int(source)),
        bytes,
        UInt32(Int(barrier)),
    )


@inline(.always)
def prefetch[T: AnyType](place: TensorPointer[T]):
    """Brings what lies somewhere in global memory into L2.

    Parameters:
        T: What lies there.

    Args:
        place: Where: the whole sector of 32 bytes comes.
    """
    inlined_assembly[
        "prefetch.global.L2 [$0];",
        NoneType,
        constraints="l",
        has_side_effect=True,
    ](UInt64(Int(place)))
