# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Contiguous shares of numbered work, whose sizes differ by one at most."""

from .divisor import Divisor


@inline(.always)
def share_start(all: Int32, shares: Int32, index: Int32) -> Int32:
    """Counts what comes before a share.

    Args:
        all: Pieces of work.
        shares: Shares.
        index: The share, or the number of them.

    Returns:
        The share's first piece: the end of the one's before it.
    """
    # 32 bits without a sign: 64 of them take a hundred instructions.
    return _start(all, shares, Int32(UInt32(all) // UInt32(shares)), index)


@inline(.always)
def share_start(all: Int32, shares: Divisor, index: Int32) -> Int32:
    """Counts what comes before a share, of as many as the host knew.

    Args:
        all: Pieces of work.
        shares: Shares.
        index: The share, or the number of them.

    Returns:
        The share's first piece: the end of the one's before it.
    """
    return _start(all, shares.value, shares.quotient(all), index)


@inline(.always)
def _start(all: Int32, shares: Int32, each: Int32, index: Int32) -> Int32:
    # The first shares have one piece more than each has.
    return each * index + min(index, all - each * shares)


@inline(.always)
def share_of(all: Int32, shares: Int32, piece: Int32) -> Int32:
    """Finds the share that a piece of work is in.

    Args:
        all: Pieces of work.
        shares: Shares.
        piece: The piece, less than `all`.

    Returns:
        The share.
    """
    var each = Int32(UInt32(all) // UInt32(shares))
    var larger = all - each * shares
    # The first shares have one piece more.
    var in_larger = larger * (each + 1)
    if piece < in_larger:
        return Int32(UInt32(piece) // UInt32(each + 1))
    return larger + Int32(UInt32(piece - in_larger) // UInt32(each))
