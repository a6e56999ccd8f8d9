# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The grouped MXFP4 matmul on Hopper for few rows: weights at memory speed.

One thread block an SM, whose warps each keep a stream of packed weights of
their own on the way. A warp meets a panel of 16 features with the activations
of a row tile. Those of a run of row tiles stay in shared memory for all of the
run's panels; the warps take panels in turn and wait for each other only between
runs. Weights lie in panels: see `panels.mojo`.
"""

from std.math import ceildiv
from std.utils import StaticTuple

from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    block_idx,
    grid_dim,
    lane_id,
    thread_idx,
    warp_id,
)
from max.gpu.host import DeviceAttribute, DeviceContext, Dim, FuncAttribute
from max.gpu.host.launch_attribute import (
    LaunchAttribute,
    LaunchAttributeID,
    LaunchAttributeValue,
)
from max.gpu.memory import external_memory
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier

from .activation_rows import ActivationRows
from .alignment import require_alignment
from .divisor import Divisor
from .epilogue import Epilogue, Operands
from .next_weights import NextWeights
from .panel_products import multiply_panel
from .panels import PANEL_FEATURES
from .part_sums import PanelSums
from .problem import MatmulProblem, RowMap
from .stream_layout import StreamLayout, StreamShape
from .stream_schedule import Pieces, TileRun, UnitDivisors, UnitSchedule
from .tile_schedule import RowTile
from .weight_stream import WeightStream


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](
        Int32(shape.threads())
    ),
    `nvvm.maxnreg`=Int(shape.registers).__mlir_index__(),
)
@__name(t"mxfp4_moe_stream_16x{shape.rows}_{EpilogueType.NAME}")
def _stream_kernel[
    RowMapType: RowMap,
    EpilogueType: Epilogue,
    shape: StreamShape,
    tables_ready: Bool,
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    divisors: UnitDivisors,
    next: NextWeights,
):
    var layout = StreamLayout[shape](Int(problem.depth), Int(problem.groups))
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=128]()
    var schedule = UnitSchedule(
        shared.unsafe_offset(layout.schedule()),
        problem,
        Int32(shape.rows),
        divisors,
    )
    layout.init_barriers(shared)
    var activations = ActivationRows[shape](layout, shared)
    comptime if not tables_ready:
        wait_on_dependent_grids()
    var share = schedule.build[equal_tiles=shape.row_octets() == 1](problem)
    var unit = share.unit
    var end_unit = share.end_unit
    var panels = divisors.panels.value
    var end_tile = divisors.panels.quotient_up(end_unit)
    var run = TileRun(0, 0, 0)
    if unit < end_unit:
        run = schedule.tile_run(divisors.panels.quotient(unit), end_tile)
    comptime if not tables_ready:
        # Copies come in the order in which they are asked for.
        activations.start(problem, rows, run)
    var row_blocks = Int32(layout.row_blocks())
    var pieces = Pieces[shape.warps, shape.chunk_blocks, shape.cuts()](
        unit, end_unit, row_blocks
    )
    var place = unit + Int32(warp_id())
    var weights = WeightStream[shape](
        problem, layout, shared, schedule, pieces, place
    )
    comptime if tables_ready:
        wait_on_dependent_grids()
        activations.start(problem, rows, run)
    # The next launch's weights do not stand in front of these.
    launch_dependent_grids()
    comptime if EpilogueType.READS_ROWS:
        if Int32(thread_idx.x) < run.rows:
            epilogue.prefetch_row(Int(run.first_row) + Int(thread_idx.x))

    var tile_end = Int32(0)
    var row_tile = RowTile(-1, 0, 0)
    var piece = pieces.piece(place, row_blocks)
    while unit < end_unit:
        var run_end = min(end_unit, run.end_tile * panels)
        activations.wait()
        while piece.blocks > 0 and piece.unit < run_end:
            if piece.unit >= tile_end:
                var tile = divisors.panels.quotient(piece.unit)
                row_tile = schedule.row_tile(tile)
                tile_end = (tile + 1) * panels
            var first_feature = (piece.unit - tile_end + panels) * Int32(
                PANEL_FEATURES
            )
            epilogue.prefetch_features(
                Int(row_tile.expert), Int(first_feature + _lane_feature())
            )
            var octets = Int32(ceildiv(UInt32(row_tile.count), 8))
            comptime for count in range(1, shape.row_octets() + 1):
                if octets == Int32(count):
                    var sums = multiply_panel[count](
                        problem,
                        layout,
                        schedule,
                        activations,
                        row_tile,
                        piece,
                        weights,
                    )
                    if piece.blocks == row_blocks:
                        _store(epilogue, sums, row_tile, first_feature)
                    else:
                        layout.part_sums(shared, Int32(warp_id())).put(sums)
            place += Int32(shape.warps)
            piece = pieces.piece(place, row_blocks)
        unit = run_end
        if unit < end_unit:
            run = schedule.tile_run(run.end_tile, end_tile)
            # The last products with the rows before are done.
            barrier()
            activations.start(problem, rows, run)

    comptime if not tables_ready:
        # For the next launch: weights have driven the tables out of L2.
        schedule.prefetch(problem)
        if share.unit < end_unit:
            # Read again, so that it takes no register while products run.
            next.prefetch[shape](schedule, schedule.share[].unit, panels)
    if pieces.are_cut():
        barrier()
        var warp = Int32(warp_id())
        if warp < pieces.left:
            var left_unit = pieces.first_left + warp
            var tile = divisors.panels.quotient(left_unit)
            var sums = PanelSums[shape.row_octets()](fill=SIMD[.float32, 4](0))
            for part in range(pieces.parts):
                layout.part_sums(shared, part * pieces.left + warp).add_to(sums)
            _store(
                epilogue,
                sums,
                schedule.row_tile(tile),
                (left_unit - tile * panels) * Int32(PANEL_FEATURES),
            )

    if share.loses_rows != 0:
        _store_empty_rows[shape.threads()](problem, epilogue)


@inline(.always)
def _store[
    EpilogueType: Epilogue, octets: Int, //
](
    epilogue: EpilogueType,
    sums: PanelSums[octets],
    row_tile: RowTile,
    first_feature: Int32,
):
    var feature = Int(first_feature + _lane_feature())
    var lane_row = Int32(lane_id()) % 4 * 2
    # All is read at once, before anything is written, so that nothing waits for one
    # row after the other.
    var of_features = epilogue.load_features(Int(row_tile.expert), feature)
    var of_rows = StaticTuple[Operands, 2 * octets](fill=0)
    comptime if EpilogueType.READS_ROWS:
        comptime for at in range(2 * octets):
            # Where there is no row any more, the last one's operands do.
            var row = min(lane_row + Int32(_row_of(at)), row_tile.count - 1)
            of_rows[at] = epilogue.load_row(Int(row_tile.first + row))
    comptime for at in range(2 * octets):
        var row = lane_row + Int32(_row_of(at))
        if row < row_tile.count:
            epilogue.write(
                of_rows[at],
                Int(row_tile.first + row),
                feature,
                epilogue.finish(
                    of_rows[at],
                    of_features,
                    sums[at // 2][at % 2],
                    sums[at // 2][2 + at % 2],
                ),
            )


@inline(.always)
def _lane_feature() -> Int32:
    # The first of the lane's two features of a panel.
    return Int32(lane_id()) // 4 * 2


def _row_of(at: Int) -> Int:
    # Of a row tile, less the lane's first: two rows of each eight.
    return at // 2 * 8 + at % 2


@inline(.always)
def _store_empty_rows[
    EpilogueType: Epilogue, //, threads: Int
](problem: MatmulProblem, epilogue: EpilogueType):
    # They are rare: the padding of expert-parallel callers.
    var thread = Int(block_idx.x) * threads + Int(thread_idx.x)
    var all = Int(grid_dim.x) * threads
    var pairs = Int(problem.features) // 2
    for group in range(-1, Int(problem.groups) + 1):
        if problem.group_expert(group) >= 0:
            continue
        var first, end = problem.group_bounds(group)
        for i in range(thread, (end - first) * pairs, all):
            epilogue.store_empty(first + i // pairs, i % pairs * 2)


def stream_matmul_sm90[
    RowMapType: RowMap,
    EpilogueType: Epilogue,
    //,
    shape: StreamShape,
    *,
    tables_ready: Bool = False,
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    ctx: DeviceContext,
    next: Optional[NextWeights] = None,
) raises:
    """Enqueues a grouped MXFP4 matmul for few rows an expert, in one launch.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        EpilogueType: What happens to each pair of sums.
        shape: How a thread block works.
        tables_ready: Whether `starts` and `expert_ids` were complete before
            the kernel began that comes before this one. Weights then start
            to arrive while that one ends.

    Args:
        problem: The operands and their sizes, in device memory; `blocks`,
            `scales` and `activations` start at a multiple of 16 bytes, and
            `StreamLayout.fits` holds.
        rows: Maps a routed row to its activation row.
        epilogue: Receives the float32 sums of two neighbouring features.
        ctx: The device.
        next: What comes next, if that is known.

    Raises:
        Error: If an operand is not aligned, or the launch fails.
    """
    require_alignment(
        "blocks, scales and activations",
        Int(problem.blocks) | Int(problem.scales) | Int(problem.activations),
    )
    if next:
        next.value().require_alignment()
    var layout = StreamLayout[shape](Int(problem.depth), Int(problem.groups))
    var attributes = pdl_launch_attributes(PDLLevel.OVERLAP_AT_END)
    # In percent: all that can be shared memory, so that the next launch's
    # blocks find room beside these.
    attributes.append(
        LaunchAttribute(
            LaunchAttributeID.PREFERRED_SHARED_MEMORY_CARVEOUT,
            LaunchAttributeValue(Dim(100)),
        )
    )
    var blocks = ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT)
    ctx.enqueue_function[
        _stream_kernel[RowMapType, EpilogueType, shape, tables_ready]
    ](
        problem,
        rows,
        epilogue,
        UnitDivisors(
            Divisor(Int(problem.features) // PANEL_FEATURES), Divisor(blocks)
        ),
        next.or_else(NextWeights.none(problem)),
        grid_dim=blocks,
        block_dim=shape.threads(),
        shared_mem_bytes=layout.shared_bytes(),
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(layout.shared_bytes())
        ),
        attributes=attributes^,
    )
