# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The tokens of the layer kernel for few of them, copied by all of its threads.

Through registers, so that they are enlarged once, as `raw_products.mojo` asks. The
loads are on their way while experts are selected, and the barrier that the block
meets at anyway is behind the stores.
"""

from std.utils import StaticTuple

from max.gpu import thread_idx

from .bulk_copy import SharedPointer
from .l2_prefetch import CACHE_LINE_BYTES, prefetch_to_l2
from .layer_problem import LayerProblem
from .raw_products import enlarge
from .slice_layout import SHAPE, SliceLayout

comptime _UNIT_BYTES = 16
# What a thread loads at once.

comptime _UNIT_FEATURES = 8
# The same in BF16.

comptime _UNITS = 3
# Units that a thread has on their way: all there are of four tokens of 2880.


@fieldwise_init
struct SliceTokens(TrivialRegisterPassable):
    """A thread's first units of the tokens."""

    var units: StaticTuple[SIMD[.bfloat16, _UNIT_FEATURES], _UNITS]
    """The units, in turns of all threads."""

    @staticmethod
    @inline(.always)
    def clear_no_row(layout: SliceLayout, shared: SharedPointer[UInt8]):
        """Fills the row that stands for missing ones with zeros, with all threads.

        Threads meet before any of them reads it.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
        """
        for unit in range(
            Int32(thread_idx.x),
            Int32(layout.token_bytes() // _UNIT_BYTES),
            Int32(SHAPE.threads()),
        ):
            shared.unsafe_offset(layout.no_row()).unsafe_store[
                alignment=_UNIT_BYTES
            ](Int(unit) * _UNIT_BYTES, SIMD[.uint8, _UNIT_BYTES](0))

    @staticmethod
    @inline(.always)
    def prefetch(layer: LayerProblem, layout: SliceLayout):
        """Brings all tokens into L2, with all threads of the block.

        This may come before the kernel waits for what writes them.

        Args:
            layer: The operands and their sizes.
            layout: How many tokens there are.
        """
        comptime line_units = CACHE_LINE_BYTES // _UNIT_BYTES
        for unit in range(
            Int32(thread_idx.x) * Int32(line_units),
            Self._all(layer, layout),
            Int32(SHAPE.threads() * line_units),
        ):
            prefetch_to_l2(
                layer.hidden.unsafe_offset(Int(unit) * _UNIT_FEATURES)
            )

    @staticmethod
    @inline(.always)
    def load(layer: LayerProblem, layout: SliceLayout) -> Self:
        """Starts loading them.

        Args:
            layer: The operands and their sizes.
            layout: How many tokens there are.

        Returns:
            What no thread has to wait for yet.
        """
        var units = StaticTuple[SIMD[.bfloat16, _UNIT_FEATURES], _UNITS](fill=0)
        var all = Self._all(layer, layout)
        comptime for i in range(_UNITS):
            var unit = Int32(thread_idx.x) + Int32(i * SHAPE.threads())
            if unit < all:
                units[i] = Self._load(layer, unit)
        return Self(units)

    @inline(.always)
    def store(
        self,
        layer: LayerProblem,
        layout: SliceLayout,
        shared: SharedPointer[UInt8],
    ):
        """Enlarges and stores all units, those that were not loaded yet as well.

        Threads meet before any of them reads a token.

        Args:
            layer: The operands and their sizes.
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
        """
        var all = Self._all(layer, layout)
        comptime for i in range(_UNITS):
            var unit = Int32(thread_idx.x) + Int32(i * SHAPE.threads())
            if unit < all:
                Self._store(layer, layout, shared, unit, self.units[i])
        for unit in range(
            Int32(thread_idx.x) + Int32(_UNITS * SHAPE.threads()),
            all,
            Int32(SHAPE.threads()),
        ):
            Self._store(layer, layout, shared, unit, Self._load(layer, unit))

    @staticmethod
    @inline(.always)
    def _all(layer: LayerProblem, layout: SliceLayout) -> Int32:
        return layout.tokens * Self._token_units(layer)

    @staticmethod
    @inline(.always)
    def _token_units(layer: LayerProblem) -> Int32:
        return Int32(UInt32(layer.features) // UInt32(_UNIT_FEATURES))

    @staticmethod
    @inline(.always)
    def _load(
        layer: LayerProblem, unit: Int32
    ) -> SIMD[.bfloat16, _UNIT_FEATURES]:
        return layer.hidden.unsafe_load[
            width=_UNIT_FEATURES, alignment=_UNIT_BYTES
        ](Int(unit) * _UNIT_FEATURES)

    @staticmethod
    @inline(.always)
    def _store(
        layer: LayerProblem,
        layout: SliceLayout,
        shared: SharedPointer[UInt8],
        unit: Int32,
        elements: SIMD[.bfloat16, _UNIT_FEATURES],
    ):
        var token_units = Self._token_units(layer)
        var token = Int32(UInt32(unit) // UInt32(token_units))
        shared.unsafe_offset(layout.token_row(token)).unsafe_bitcast[
            BFloat16
        ]().unsafe_store[alignment=_UNIT_BYTES](
            Int(unit - token * token_units) * _UNIT_FEATURES,
            enlarge(elements),
        )
