# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The grouped MXFP4 matmul on Hopper for many rows: `wgmma` at speed.

One thread block an SM. The copy engine brings packed weights and rows of
activations into a ring of stages in shared memory, three or four warpgroups
multiply. Weights are A, expanded in registers, and rows are B, so that the tile
follows the number of rows that an expert has.
"""

from std.memory import Pointer
from std.utils import StaticTuple

from layout.tma_async import SharedMemBarrier
from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    WARP_SIZE,
    block_idx,
    grid_dim,
    lane_id,
    thread_idx,
    warp_id,
)
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.host.nvidia.tma import TensorMapSwizzle, TMADescriptor
from max.gpu.intrinsics import warpgroup_reg_alloc, warpgroup_reg_dealloc
from max.gpu.memory import external_memory
from max.gpu.primitives import warp
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)

from .alignment import require_alignment
from .epilogue import Epilogue
from .gather_rows import gather_rows
from .kernel_argument import TensorPointer
from .mxfp4 import BLOCK_ELEMENTS
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES, WORD_BYTES
from .prefill_consumer import Consumer
from .prefill_layout import (
    BOX_ROWS,
    PANEL_STEP_BYTES,
    PRODUCER_REGISTERS,
    SHARED_BYTES,
    STEP_DEPTH,
    PrefillLayout,
    PrefillShape,
    stage_bytes,
)
from .prefill_producer import TileCopies, prepare_operands
from .prefill_ring import OperandSets, Ring, make_barriers
from .prefill_schedule import GroupRows, PrefillSchedule
from .prefill_sums import ROW_UNIT, declare_sums
from .problem import MatmulProblem, RowMap
from .tensor_copy import matrix_map


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(shape.threads()))
)
@__llvm_arg_metadata(weights, `nvvm.grid_constant`)
@__llvm_arg_metadata(rows, `nvvm.grid_constant`)
@__name(
    t"mxfp4_moe_prefill_{shape.tile_features()}x{shape.tile_rows}_{EpilogueType.NAME}"
)
def _prefill_kernel[
    EpilogueType: Epilogue, shape: PrefillShape, tables_ready: Bool
](
    weights: TMADescriptor,
    rows: TMADescriptor,
    problem: MatmulProblem,
    layout: PrefillLayout[shape],
    epilogue: EpilogueType,
):
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=1024]()
    var barriers = shared.unsafe_bitcast[SharedMemBarrier]()
    declare_sums[shape.tile_rows]()
    make_barriers[shape](barriers)
    comptime if not tables_ready:
        wait_on_dependent_grids()
    var schedule = PrefillSchedule[
        shape.tile_features(), shape.tile_rows, ROW_UNIT
    ](
        shared.unsafe_offset(Int(layout.schedule())).unsafe_bitcast[
            GroupRows
        ](),
        problem.groups,
        layout.feature_tiles,
    )
    schedule.build(problem, shape.threads())

    # Blocks take tiles in turn. Weights, scales and operands come while the kernel
    # before ends, whose results are the rows.
    var index = Int32(block_idx.x)
    var stages = layout.stages(schedule.most_row_units())
    var bytes = stage_bytes[shape](schedule.most_row_units())
    var sets = OperandSets(barriers)
    comptime copying_warp = shape.consumer_threads() // WARP_SIZE
    if warp_id() >= copying_warp:
        warpgroup_reg_dealloc[PRODUCER_REGISTERS]()
        if warp_id() > copying_warp:
            var first = Int(thread_idx.x) == (copying_warp + 1) * WARP_SIZE
            while index < schedule.tiles():
                prepare_operands(
                    problem,
                    layout,
                    shared,
                    schedule.tile(index),
                    first,
                    epilogue,
                    sets,
                )
                index += Int32(grid_dim.x)
        elif lane_id() == 0:
            var copies = TileCopies[shape](
                problem,
                Pointer(to=weights),
                Pointer(to=rows),
                layout.steps,
                shared.unsafe_offset(Int(layout.first_stage())),
                Ring(barriers, stages, bytes, fills=True),
            )
            if index < schedule.tiles():
                copies.copy_first(schedule.tile(index))
                index += Int32(grid_dim.x)
            while index < schedule.tiles():
                copies.copy(schedule.tile(index))
                index += Int32(grid_dim.x)
    else:
        warpgroup_reg_alloc[shape.consumer_registers()]()
        wait_on_dependent_grids()
        launch_dependent_grids()
        _store_empty_rows[shape.consumer_threads()](problem, epilogue)
        var consumer = Consumer(
            layout, shared, Ring(barriers, stages, bytes, fills=False), sets
        )
        while index < schedule.tiles():
            var tile = consumer.multiply[EpilogueType]()
            consumer.store(tile, problem.features, epilogue)
            index += Int32(grid_dim.x)


@inline(.always)
def _store_empty_rows[
    EpilogueType: Epilogue, //, threads: Int
](problem: MatmulProblem, epilogue: EpilogueType):
    # Rows of no expert are rare: the padding of expert-parallel callers.
    for base in range(-1, Int(problem.groups) + 1, WARP_SIZE):
        var lane_group = base + Int(thread_idx.x) % WARP_SIZE
        var lost = False
        if lane_group <= Int(problem.groups):
            var first, end = problem.group_bounds(lane_group)
            lost = end > first and problem.group_expert(lane_group) < 0
        if warp.vote[.uint32](lost) == 0:
            continue
        for group in range(
            base, min(base + WARP_SIZE, Int(problem.groups) + 1)
        ):
            if problem.group_expert(group) >= 0:
                continue
            var first, end = problem.group_bounds(group)
            for row in range(first + Int(block_idx.x), end, Int(grid_dim.x)):
                for feature in range(
                    2 * Int(thread_idx.x),
                    Int(problem.features),
                    2 * threads,
                ):
                    epilogue.store_empty(row, feature)


def prefill_matmul_sm90[
    RowMapType: RowMap,
    EpilogueType: Epilogue,
    //,
    shape: PrefillShape,
    *,
    tables_ready: Bool = False,
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    ctx: DeviceContext,
    gathered: Optional[TensorPointer[BFloat16]] = None,
) raises:
    """Enqueues a grouped MXFP4 matmul for many rows an expert, in one launch, and
    one more before it where rows are gathered.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        EpilogueType: What happens to each pair of sums.
        shape: How a thread block works.
        tables_ready: Whether `starts`, `expert_ids` and what the epilogue reads
            were complete before the kernel began that comes before this one.
            Weights then start to arrive while that one ends.

    Args:
        problem: The operands and their sizes, in device memory; `blocks`,
            `scales` and `activations` start at a multiple of 16 bytes, and
            `PrefillLayout.fits` holds.
        rows: Maps a routed row to its activation row.
        epilogue: Receives the float32 sums of two neighbouring features.
        ctx: The device.
        gathered: Room for BF16 `[rows, depth]`, at a multiple of 16 bytes, where
            rows are gathered; allocated where there is none, which a device
            graph that is captured may not do.

    Raises:
        Error: If an operand is not aligned, or the launch fails.
    """
    require_alignment(
        "blocks, scales and activations",
        Int(problem.blocks) | Int(problem.scales) | Int(problem.activations),
    )
    comptime if RowMapType.GATHERS:
        if gathered:
            _gather_and_launch[shape](
                problem, rows, epilogue, ctx, gathered.value()
            )
            return
        var room = ctx.enqueue_create_buffer[.bfloat16](
            Int(problem.rows) * Int(problem.depth)
        )
        _gather_and_launch[shape](
            problem,
            rows,
            epilogue,
            ctx,
            room.unsafe_ptr()
            .unsafe_mut_cast[True]()
            .unsafe_origin_cast[MutUntrackedOrigin](),
        )
        _ = room^
    else:
        _launch[shape, tables_ready](problem, epilogue, ctx)


def _gather_and_launch[
    RowMapType: RowMap, EpilogueType: Epilogue, //, shape: PrefillShape
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    ctx: DeviceContext,
    gathered: TensorPointer[BFloat16],
) raises:
    gather_rows(gathered, problem, rows, ctx)
    var in_order = problem
    in_order.activations = gathered
    # Gathering waits for the tables before it lets the next kernel begin.
    _launch[shape, True](in_order, epilogue, ctx)


def _launch[
    EpilogueType: Epilogue, //, shape: PrefillShape, tables_ready: Bool
](problem: MatmulProblem, epilogue: EpilogueType, ctx: DeviceContext) raises:
    var weights = matrix_map[.uint32, TensorMapSwizzle.SWIZZLE_NONE](
        problem.blocks.unsafe_bitcast[UInt32](),
        Int(problem.experts) * Int(problem.features) // PANEL_FEATURES,
        Int(problem.depth) // BLOCK_ELEMENTS * PANEL_BLOCK_BYTES // WORD_BYTES,
        shape.tile_panels(),
        PANEL_STEP_BYTES // WORD_BYTES,
        ctx,
    )
    var rows = matrix_map[.bfloat16, TensorMapSwizzle.SWIZZLE_128B](
        problem.activations,
        Int(problem.rows),
        Int(problem.depth),
        BOX_ROWS,
        STEP_DEPTH,
        ctx,
    )
    ctx.enqueue_function[_prefill_kernel[EpilogueType, shape, tables_ready]](
        weights,
        rows,
        problem,
        PrefillLayout[shape](problem),
        epilogue,
        grid_dim=ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT),
        block_dim=shape.threads(),
        shared_mem_bytes=SHARED_BYTES,
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(SHARED_BYTES)
        ),
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
