# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The shared memory of the thread blocks of a cluster.

The address of something in a block's own shared memory maps to that of its
counterpart in another block of the cluster. That block has to run by then, and as
long as it is written to; a barrier of its own tells it how many bytes have come.
"""

from std.memory import Pointer
from std.sys import inlined_assembly

from layout.tma_async import SharedMemBarrier

comptime SharedPointer[T: AnyType] = Pointer[
    T, MutUntrackedOrigin, address_space=.SHARED
]
"""A place in a thread block's shared memory.

Parameters:
    T: What lies there.
"""


@inline(.always)
def cluster_address[
    T: AnyType
](address: SharedPointer[T], rank: Int32) -> UInt32:
    """Finds the counterpart of a place in another block's shared memory.

    Parameters:
        T: What lies there.

    Args:
        address: The place in this block's.
        rank: The other block's rank in the cluster.

    Returns:
        The address.
    """
    return inlined_assembly[
        "mapa.shared::cluster.u32 $0, $1, $2;",
        UInt32,
        constraints="=r,r,r",
        has_side_effect=False,
    ](UInt32(Int(address)), rank)


@inline(.always)
def send_pair(target: UInt32, first: Float32, second: Float32, barrier: UInt32):
    """Stores two numbers in another block's shared memory, some time later.

    Args:
        target: Where to, at a multiple of 8 bytes.
        first: The first.
        second: The second.
        barrier: The barrier of that block that counts the bytes.
    """
    inlined_assembly[
        (
            "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32"
            " [$0], {$1, $2}, [$3];"
        ),
        NoneType,
        constraints="r,f,f,r,~{memory}",
        has_side_effect=True,
    ](target, first, second, barrier)


@inline(.always)
def arrive_relaxed():
    """Arrives at the barrier of the cluster's threads, and orders no memory.

    For what was written before, that takes fences of the whole GPU.
    """
    inlined_assembly[
        "barrier.cluster.arrive.relaxed.aligned;",
        NoneType,
        constraints="~{memory}",
        has_side_effect=True,
    ]()
