# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Sums over a part of K that one warp leaves in shared memory for another."""

from std.sys import size_of
from std.utils import StaticTuple

from max.gpu import WARP_SIZE, lane_id

from .bulk_copy import SharedPointer

comptime PanelSums[octets: Int] = StaticTuple[SIMD[.float32, 4], octets]
"""For each eight rows, a lane's sums: two rows of one feature, then of the next.

Parameters:
    octets: Groups of eight rows.
"""


@fieldwise_init
struct PartSums(TrivialRegisterPassable):
    """A warp's sums of one panel."""

    comptime OCTET_BYTES = WARP_SIZE * 4 * size_of[Float32]()
    """Bytes of eight rows' sums."""

    var start: SharedPointer[Float32]
    """Where they lie, at a multiple of 16 bytes."""

    @inline(.always)
    def put[octets: Int, //](self, sums: PanelSums[octets]):
        """Leaves this lane's sums.

        Parameters:
            octets: Groups of eight rows.

        Args:
            sums: The sums.
        """
        comptime for octet in range(octets):
            self._place(octet).unsafe_store[alignment=16](0, sums[octet])

    @inline(.always)
    def add_to[octets: Int, //](self, mut sums: PanelSums[octets]):
        """Adds this lane's sums to others.

        Parameters:
            octets: Groups of eight rows, of which the last may not be there: what is
                added to their sums has no meaning.

        Args:
            sums: The others.
        """
        comptime for octet in range(octets):
            sums[octet] += self._place(octet).unsafe_load[
                width=4, alignment=16
            ](0)

    @inline(.always)
    def _place(self, octet: Int) -> SharedPointer[Float32]:
        return self.start.unsafe_offset(
            (octet * WARP_SIZE + Int(lane_id())) * 4
        )
