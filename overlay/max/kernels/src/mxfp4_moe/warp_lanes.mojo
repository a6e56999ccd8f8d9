# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Instructions over the lanes of a warp that MAX 26.7.0 does not wrap."""

from std.sys import inlined_assembly

from max.gpu import WARP_SIZE


@inline(.always)
def warp_max(value: UInt32) -> UInt32:
    """Finds the largest value, in one instruction where shuffles take ten.

    Args:
        value: A value of each lane.

    Returns:
        The largest.
    """
    return inlined_assembly[
        "redux.sync.max.u32 $0, $1, 0xffffffff;",
        UInt32,
        constraints="=r,r",
        has_side_effect=True,
    ](value)


@inline(.always)
def warp_sum(value: UInt32) -> UInt32:
    """Adds the values of all lanes up, in one instruction.

    Args:
        value: A value of each lane.

    Returns:
        The sum.
    """
    return inlined_assembly[
        "redux.sync.add.u32 $0, $1, 0xffffffff;",
        UInt32,
        constraints="=r,r",
        has_side_effect=True,
    ](value)


@inline(.always)
def lanes_with(value: UInt32) -> UInt32:
    """Finds the lanes that have the same value.

    Args:
        value: A value of each lane.

    Returns:
        A bit for each of them, this lane's included.
    """
    return inlined_assembly[
        "match.any.sync.b32 $0, $1, 0xffffffff;",
        UInt32,
        constraints="=r,r",
        has_side_effect=True,
    ](value)


@inline(.always)
def warp_here() -> Int32:
    """Asks for the warp's number anew, where warps lie along x.

    What follows from `warp_id` is computed ahead of a loop, and kept in registers
    that the loop may not have to spare.

    Returns:
        The warp.
    """
    # Without a sign, since floor division of one that may have it takes six
    # instructions.
    return Int32(
        inlined_assembly[
            "mov.u32 $0, %tid.x;",
            UInt32,
            constraints="=r",
            has_side_effect=True,
        ]()
        // UInt32(WARP_SIZE)
    )
