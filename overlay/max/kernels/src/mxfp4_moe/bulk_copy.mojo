# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Copies of contiguous bytes by Hopper's copy engine.

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


comptime _EVICT_FIRST = UInt64(0x12F0_0000_0000_0000)
# The policy that `createpolicy.fractional.L2::evict_first` makes.


@inline(.always)
def bulk_copy[
    *, once: Bool = False
](
    target: SharedPointer[UInt8],
    source: TensorPointer[UInt8],
    bytes: Int32,
    barrier: SharedPointer[SharedMemBarrier],
):
    """Starts a copy from global to shared memory.

    Parameters:
        once: Whether nobody reads the bytes again, so that they need not stay in L2.

    Args:
        target: Where to, at a multiple of 16 bytes.
        source: Where from, likewise.
        bytes: How many, a multiple of 16.
        barrier: What counts them, and was told to expect them.
    """
    comptime if once:
        inlined_assembly[
            (
                "cp.async.bulk.shared::cluster.global"
                ".mbarrier::complete_tx::bytes.L2::cache_hint"
                " [$0], [$1], $2, [$3], $4;"
            ),
            NoneType,
            constraints="r,l,r,r,l,~{memory}",
            has_side_effect=True,
        ](
            UInt32(Int(target)),
            UInt64(Int(source)),
            bytes,
            UInt32(Int(barrier)),
            _EVICT_FIRST,
        )
        return
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
