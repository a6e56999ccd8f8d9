# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the matmul behind a stream will read first, asked for while the stream ends.

Between a block's last weights and the next launch's first ones memory has little to
do: the last blocks end, rows are written, and the next launch lists its row tiles.
The blocks' shares of two matmuls with the same rows begin at the same row tiles, so a
block knows which weights it will want.
"""

from max.gpu import lane_id, warp_id

from .alignment import require_alignment
from .divisor import Divisor
from .kernel_argument import KernelArgument, TensorPointer
from .l2_prefetch import prefetch_run_to_l2
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .problem import MatmulProblem
from .stream_layout import StreamShape
from .stream_schedule import UnitSchedule


struct NextWeights(KernelArgument):
    """The packed weights of the matmul that comes next, in panels."""

    comptime NAME = StaticString("next_weights")
    """The word for them."""

    var blocks: TensorPointer[UInt8]
    """Their packed elements."""
    var scales: TensorPointer[UInt8]
    """Their scales."""
    var panels: Divisor
    """Panels of an expert."""
    var row_blocks: Int32
    """MXFP4 blocks of a weight row; 0 where nothing comes next."""

    def __init__(out self, problem: MatmulProblem):
        """Names what comes next.

        Args:
            problem: The next matmul, whose routed rows are the same.
        """
        self.blocks = problem.blocks
        self.scales = problem.scales
        self.panels = Divisor(Int(problem.features) // PANEL_FEATURES)
        self.row_blocks = problem.depth // Int32(BLOCK_ELEMENTS)

    @staticmethod
    def none(problem: MatmulProblem) -> Self:
        """Says that nothing is known to come next.

        Args:
            problem: This matmul.

        Returns:
            What asks for nothing.
        """
        var next = Self(problem)
        next.row_blocks = 0
        return next

    def require_alignment(self) raises:
        """Checks that they can be asked for.

        Raises:
            Error: If `blocks` or `scales` do not start at a multiple of 16 bytes.
        """
        require_alignment(
            "the next matmul's blocks and scales",
            Int(self.blocks) | Int(self.scales),
        )

    @inline(.always)
    def prefetch[
        shape: StreamShape
    ](self, schedule: UnitSchedule, unit: Int32, panels: Int32):
        """Asks for what the warp will read first, with all of its lanes.

        Parameters:
            shape: How a thread block works.

        Args:
            schedule: The row tiles.
            unit: The first unit of the block's share of this matmul.
            panels: Panels of an expert in this matmul.
        """
        if self.row_blocks == 0:
            return
        var tile = schedule.divisors.panels.quotient(unit)
        var panel = (unit - tile * panels) * self.panels.value
        var next_unit = (
            tile * self.panels.value
            + schedule.divisors.panels.quotient(panel)
            + Int32(warp_id())
        )
        var next_tile = self.panels.quotient(next_unit)
        # The last share has fewer panels than there are warps.
        if next_tile >= schedule.row_tiles():
            return
        var first = (
            schedule.row_tile(next_tile).expert * self.panels.value
            + next_unit
            - next_tile * self.panels.value
        ) * self.row_blocks
        var count = min(
            Int32(shape.slots * shape.chunk_blocks), self.row_blocks
        )
        if lane_id() == 0:
            prefetch_run_to_l2(
                self.blocks.unsafe_offset(Int(first) * PANEL_BLOCK_BYTES),
                count * Int32(PANEL_BLOCK_BYTES),
            )
            prefetch_run_to_l2(
                self.scales.unsafe_offset(Int(first) * PANEL_FEATURES),
                count * Int32(PANEL_FEATURES),
            )
