# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The shared memory of the thread blocks of a cluster.

The address of something in a block's own shared memory maps to that of its
counterpart in another block of the cluster. Both blocks have to run: the reader
waits for a barrier of the cluster before, and the owner for another one after.
"""

from std.memory import Pointer, bitcast
from std.sys import inlined_assembly

comptime SharedPointer[T: AnyType] = Pointer[
    T, MutUntrackedOrigin, address_space=.SHARED
]
"""A place in a thread block's shared memory.

Parameters:
    T: What lies there.
"""


@inline(.always)
def load_from_block(
    address: SharedPointer[Float32], rank: Int32
) -> SIMD[.float32, 4]:
    """Loads four numbers from another block's shared memory.

    Args:
        address: Where they would be in this block's, at a multiple of 16 bytes.
        rank: The other block's rank in the cluster; its own is allowed.

    Returns:
        The numbers.
    """
    var remote = inlined_assembly[
        "mapa.shared::cluster.u32 $0, $1, $2;",
        UInt32,
        constraints="=r,r,r",
        has_side_effect=False,
    ](UInt32(Int(address)), rank)
    var pairs = SIMD[.uint64, 2](
        _load_pair(remote),
        _load_pair(remote + 8),
    )
    return bitcast[.float32, 4](pairs)


@inline(.always)
def _load_pair(remote: UInt32) -> UInt64:
    return inlined_assembly[
        "ld.shared::cluster.b64 $0, [$1];",
        UInt64,
        constraints="=l,r,~{memory}",
        has_side_effect=True,
    ](remote)
