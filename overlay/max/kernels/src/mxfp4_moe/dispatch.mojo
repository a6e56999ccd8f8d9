# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Chooses the implementation of a grouped matmul and its tile sizes."""

from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from .epilogue import Epilogue
from .kernel_argument import TensorPointer
from .matmul_cpu import grouped_matmul_cpu
from .matmul_sm90 import TileShape, grouped_matmul_sm90
from .next_weights import NextWeights
from .prefill_layout import PrefillLayout, PrefillShape
from .prefill_sm90 import prefill_matmul_sm90
from .problem import MatmulProblem, RowMap
from .stream_layout import StreamLayout, StreamShape
from .stream_sm90 import stream_matmul_sm90


def grouped_matmul[
    RowMapType: RowMap,
    EpilogueType: Epilogue,
    //,
    target: StaticString,
    *,
    in_panels: Bool = False,
    tables_ready: Bool = False,
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    ctx: DeviceContext,
    gathered: Optional[TensorPointer[BFloat16]] = None,
    next: Optional[NextWeights] = None,
) raises:
    """Runs a grouped MXFP4 matmul on the op's device.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        EpilogueType: What happens to each pair of sums.
        target: The device kind that the graph compiler places the op on.
        in_panels: Whether the weights lie in panels.
        tables_ready: Whether `starts` and `expert_ids` were complete before
            the kernel began that comes before this one.

    Args:
        problem: The operands and their sizes.
        rows: Maps a routed row to its activation row.
        epilogue: Receives the float32 sums of two neighbouring features.
        ctx: The device.
        gathered: Room for BF16 `[rows, depth]`, which the prefill kernel takes
            where rows are gathered, and allocates where there is none.
        next: The matmul behind this one, if that is known, for the streams.

    Raises:
        Error: If a launch fails, or on the CPU a group names an expert that
            the stack does not hold.
    """
    if problem.rows == 0:
        return
    comptime if is_cpu[target]():
        grouped_matmul_cpu[in_panels=in_panels](problem, rows, epilogue)
    else:
        comptime if in_panels:
            # Rows an expert can expect decide how many of them share one pass
            # over its packed bytes.
            comptime four_rows = (
                StreamShape.FOUR_ROWS_NEXT if tables_ready else StreamShape.FOUR_ROWS
            )
            if _streams[four_rows](problem, through=Int32(four_rows.rows)):
                stream_matmul_sm90[four_rows, tables_ready=tables_ready](
                    problem, rows, epilogue, ctx, next
                )
            elif problem.rows >= 2 * problem.groups and _streams[
                StreamShape.TWENTY_FOUR_ROWS
            ](problem, through=18 * problem.groups):
                stream_matmul_sm90[
                    StreamShape.TWENTY_FOUR_ROWS, tables_ready=tables_ready
                ](problem, rows, epilogue, ctx, next)
            elif _streams[StreamShape.EIGHT_ROWS](
                problem, through=6 * problem.groups
            ):
                stream_matmul_sm90[
                    StreamShape.EIGHT_ROWS, tables_ready=tables_ready
                ](problem, rows, epilogue, ctx, next)
            elif problem.rows <= 72 * problem.groups and PrefillLayout[
                PrefillShape.FEW_ROWS
            ].fits(problem):
                prefill_matmul_sm90[
                    PrefillShape.FEW_ROWS, tables_ready=tables_ready
                ](problem, rows, epilogue, ctx, gathered)
            else:
                prefill_matmul_sm90[
                    PrefillShape.MANY_ROWS, tables_ready=tables_ready
                ](problem, rows, epilogue, ctx, gathered)
        else:
            if problem.rows < 16 * problem.groups:
                grouped_matmul_sm90[TileShape.FEW_ROWS](
                    problem, rows, epilogue, ctx
                )
            else:
                grouped_matmul_sm90[TileShape.MANY_ROWS](
                    problem, rows, epilogue, ctx
                )


def _streams[
    shape: StreamShape
](problem: MatmulProblem, *, through: Int32) -> Bool:
    # Whether there are no more rows than that, and the weights can stream.
    return problem.rows <= through and StreamLayout[shape].fits(problem)
