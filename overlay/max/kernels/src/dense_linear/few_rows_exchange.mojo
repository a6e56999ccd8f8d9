# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The end of a layer of few rows: blocks add their sums up and store them.

A block of the cluster owns every `slices`-th group of eight rows. The others send
it their sums of those, and it adds all slices' in their order. What a lane sends
lies where the same lane of the owner looks for it.
"""

from std.memory import bitcast

from layout.tma_async import SharedMemBarrier
from max.gpu import lane_id, warp_id
from max.gpu.primitives import warp

from .cluster_memory import SharedPointer, cluster_address, send_pair
from .few_rows_shape import OCTET_SUMS, FewRowsShape
from .few_rows_sums import get_sum
from .problem import LinearProblem

comptime _PAIR = 2
# Neighbouring rows that a lane has sums of.

comptime _GROUP = 8
# Features between a lane's two.


struct FewRowsExchange[
    features: Int, depth: Int, has_bias: Bool, //, shape: FewRowsShape
](TrivialRegisterPassable):
    """One multiplying lane's part of the sums.

    Parameters:
        features: N.
        depth: K.
        has_bias: Whether there is a bias to add.
        shape: How thread blocks share the layer out.
    """

    var problem: LinearProblem[Self.features, Self.depth, Self.has_bias]
    """The operands."""
    var slice: Int32
    """The block's slice of K, and its rank in the cluster."""
    var feature: Int32
    """The first of the lane's two features, within the tile."""
    var stored_feature: Int32
    """The first of the two neighbours that the lane stores, and eight above it
    two more."""
    var biases: SIMD[.bfloat16, 4]
    """The biases of these four, once they are loaded."""

    @inline(.always)
    def __init__(
        out self,
        problem: LinearProblem[Self.features, Self.depth, Self.has_bias],
        slice: Int32,
        first_feature: Int32,
    ):
        """Finds the lane's place.

        Args:
            problem: The operands.
            slice: The block's slice of K.
            first_feature: The first feature of the tile.
        """
        self.problem = problem
        self.slice = slice
        self.feature = Int32(warp_id()) * 16 + Int32(lane_id()) // 4
        self.stored_feature = first_feature + self.feature // _PAIR * _PAIR
        self.biases = SIMD[.bfloat16, 4](0)

    @inline(.always)
    def load_biases(mut self):
        """Loads the biases, which would be waited for at the end."""
        comptime if Self.has_bias:
            comptime for group in range(2):
                # There may be no such feature.
                var feature = min(
                    self.stored_feature + Int32(group * _GROUP),
                    Int32(Self.features - _PAIR),
                )
                var pair = self.problem.load_bias[_PAIR, alignment=_PAIR](
                    Int(feature)
                )
                self.biases[group * _PAIR] = pair[0]
                self.biases[group * _PAIR + 1] = pair[1]

    @inline(.always)
    def send(
        self,
        received: SharedPointer[UInt8],
        barrier: SharedPointer[SharedMemBarrier],
    ):
        """Sends the sums of others' rows, whose stages are all done.

        Args:
            received: Where sums that come lie, in any block.
            barrier: The barrier that counts them.
        """
        comptime for octet in range(Self.shape.row_octets):
            comptime owner = Int32(octet % Self.shape.slices)
            if self._exists[octet]() and self.slice != owner:
                # An owner has no place for itself.
                var place = self.slice - Int32(self.slice > owner)
                var target = cluster_address(
                    self._place[octet](received, place), owner
                )
                var counter = cluster_address(barrier, owner)
                comptime for group in range(2):
                    send_pair(
                        target + UInt32(group * _GROUP * 8 * 4),
                        get_sum[octet, 2 * group](),
                        get_sum[octet, 2 * group + 1](),
                        counter,
                    )

    @inline(.always)
    def store(
        self,
        received: SharedPointer[UInt8],
        barrier: SharedPointer[SharedMemBarrier],
    ):
        """Adds up and stores the block's rows.

        Args:
            received: Where the others' sums lie.
            barrier: The barrier that counts them.
        """
        comptime if Self.shape.slices > 1:
            if (
                Self.shape.received_bytes(Int32(self.problem.rows), self.slice)
                > 0
            ):
                barrier[].wait(0)
        comptime for octet in range(Self.shape.row_octets):
            comptime owner = octet % Self.shape.slices
            if self._exists[octet]() and self.slice == Int32(owner):
                var total = SIMD[.float32, 4](0)
                comptime for part in range(Self.shape.slices):
                    comptime if part == owner:
                        total += SIMD[.float32, 4](
                            get_sum[octet, 0](),
                            get_sum[octet, 1](),
                            get_sum[octet, 2](),
                            get_sum[octet, 3](),
                        )
                    else:
                        var sums = self._place[octet](
                            received, Int32(part - Int(part > owner))
                        )
                        total += sums.unsafe_load[width=_PAIR, alignment=8](
                            0
                        ).join(
                            sums.unsafe_load[width=_PAIR, alignment=8](
                                _GROUP * 8
                            )
                        )
                self._store[octet](total.cast[.bfloat16]())

    @inline(.always)
    def _exists[octet: Int](self) -> Bool:
        return Int32(octet * 8) < Int32(self.problem.rows)

    @inline(.always)
    def _place[
        octet: Int
    ](self, received: SharedPointer[UInt8], place: Int32) -> SharedPointer[
        Float32
    ]:
        # For each block that sends, its sums of each of the owner's groups: of
        # each feature, eight rows.
        comptime own = octet // Self.shape.slices
        return received.unsafe_bitcast[Float32]().unsafe_offset(
            Int(
                (place * Int32(Self.shape.own_octets()) + Int32(own))
                * Int32(OCTET_SUMS)
                + self.feature * 8
                + Int32(lane_id()) % 4 * _PAIR
            )
        )

    @inline(.always)
    def _store[octet: Int](self, products: SIMD[.bfloat16, 4]):
        # Lanes of neighbouring features swap, so that each has both of one row:
        # the first lane of the two that of the first row.
        var is_first = Int32(lane_id()) // 4 % 2 == 0
        var first_row = SIMD[.bfloat16, 2](products[0], products[2])
        var second_row = SIMD[.bfloat16, 2](products[1], products[3])
        var other = bitcast[.bfloat16, 2](
            warp.shuffle_xor(
                bitcast[.uint32, 1](second_row if is_first else first_row), 4
            )
        )
        var row = (
            Int32(octet * 8)
            + Int32(lane_id()) % 4 * _PAIR
            + Int32(not is_first)
        )
        if row >= Int32(self.problem.rows):
            return
        comptime for group in range(2):
            var feature = self.stored_feature + Int32(group * _GROUP)
            if feature < Int32(Self.features):
                self.problem.store_biased[alignment=_PAIR](
                    Int(row),
                    Int(feature),
                    SIMD[.bfloat16, _PAIR](
                        first_row[group], other[group]
                    ) if is_first else SIMD[.bfloat16, _PAIR](
                        other[group], second_row[group]
                    ),
                    self.biases.slice[_PAIR, offset=group * _PAIR](),
                )
