# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The grouped MXFP4 matmul on Hopper for few rows: weights at memory speed.

One thread block an SM, whose warps each keep a stream of packed weights of
their own on the way. A warp meets a panel of 16 features with the activations
of a run of row tiles, which stay in shared memory for all of the run's panels;
the warps take panels in turn and wait for each other only between runs. Weights
lie in panels: see `panels.mojo`.
"""

from std.math import ceildiv
from std.memory import bitcast
from std.utils import StaticTuple

from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    WARP_SIZE,
    block_idx,
    grid_dim,
    lane_id,
    thread_idx,
    warp_id,
)
from max.gpu.compute.mma import mma
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.memory import external_memory
from max.gpu.primitives import warp
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import syncwarp

from .activation_rows import (
    FRAGMENT_BYTES,
    fragment_index,
    load_activations,
)
from .bulk_copy import SharedPointer
from .epilogue import Epilogue
from .expand_sm90 import BlockScale, expand_panel_word
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .problem import MatmulProblem, RowMap
from .stream_layout import (
    CHUNK_BLOCKS,
    CHUNK_SCALES,
    StreamLayout,
    StreamShape,
)
from .stream_schedule import UnitSchedule, share_of_units
from .tile_schedule import RowTile
from .weight_stream import WeightStream


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](
        Int32(shape.threads())
    ),
    # One block an SM: else ptxas spills to leave registers for a second.
    `nvvm.minctasm`=Int(1).__mlir_index__(),
)
@__name(t"mxfp4_moe_stream_16x{shape.rows()}_{EpilogueType.NAME}")
def _stream_kernel[
    RowMapType: RowMap,
    EpilogueType: Epilogue,
    shape: StreamShape,
    tables_ready: Bool,
](problem: MatmulProblem, rows: RowMapType, epilogue: EpilogueType):
    var layout = StreamLayout[shape](Int(problem.depth), Int(problem.groups))
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=128]()
    var schedule = UnitSchedule(
        shared.unsafe_offset(layout.schedule()), problem, Int32(shape.rows())
    )
    WeightStream[shape].init_barriers(layout, shared)
    comptime if not tables_ready:
        wait_on_dependent_grids()
        launch_dependent_grids()
    schedule.build[shape.threads()](problem)

    var panels = problem.features // Int32(PANEL_FEATURES)
    var units = schedule.row_tiles * panels
    var first_unit = share_of_units(units, Int32(block_idx.x))
    var end_unit = share_of_units(units, Int32(block_idx.x) + 1)
    var mine = first_unit + Int32(warp_id())
    var weights = WeightStream[shape](
        problem, layout, shared, schedule, mine, end_unit
    )
    comptime if tables_ready:
        wait_on_dependent_grids()
        launch_dependent_grids()

    var panel = WarpPanel[shape](layout, shared)
    var tile_end = Int32(0)
    var row_tile = RowTile(-1, 0, 0)
    var end_tile = Int32(ceildiv(UInt32(end_unit), UInt32(panels)))
    var unit = first_unit
    while unit < end_unit:
        var run = schedule.tile_run(
            Int32(UInt32(unit) // UInt32(panels)), end_tile
        )
        var run_end = min(end_unit, run.end_tile * panels)
        load_activations(problem, rows, layout, shared, run)
        while mine < run_end:
            var sums = panel.multiply(problem, layout, schedule, weights)
            if mine >= tile_end:
                var tile = Int32(UInt32(mine) // UInt32(panels))
                row_tile = schedule.row_tile(tile)
                tile_end = (tile + 1) * panels
            _store(
                epilogue,
                sums,
                row_tile,
                run.first_row,
                (mine - tile_end + panels) * Int32(PANEL_FEATURES),
            )
            mine += Int32(shape.warps)
        unit = run_end

    if schedule.loses_rows:
        _store_empty_rows[shape.threads()](problem, epilogue)


struct WarpPanel[shape: StreamShape](TrivialRegisterPassable):
    """A warp's products, panel after panel.

    Parameters:
        shape: How a thread block works.
    """

    comptime _CHAINS = 4 // Self.shape.row_octets
    """Sums of the same row, so that no product waits for the one before it."""

    comptime _Sums = StaticTuple[
        SIMD[.float32, 4], Self._CHAINS * Self.shape.row_octets
    ]

    comptime _BLOCK_ACTIVATIONS = Int(
        fragment_index[Self.shape.row_octets](1, 0)
    ) * FRAGMENT_BYTES
    """Bytes of activations of one block."""

    var activations: SharedPointer[UInt8]
    """Where this lane's activations start."""
    var row_blocks: Int32
    """Blocks of a weight row."""

    @inline(.always)
    def __init__(
        out self,
        layout: StreamLayout[Self.shape],
        shared: SharedPointer[UInt8],
    ):
        """Begins with the warp's first panel.

        Args:
            layout: Where things lie in shared memory.
            shared: The block's shared memory.
        """
        self.activations = shared.unsafe_offset(
            layout.activations() + Int(lane_id()) * FRAGMENT_BYTES
        )
        self.row_blocks = Int32(layout.row_blocks())

    @inline(.always)
    def multiply(
        self,
        problem: MatmulProblem,
        layout: StreamLayout[Self.shape],
        schedule: UnitSchedule,
        mut weights: WeightStream[Self.shape],
    ) -> StaticTuple[SIMD[.float32, 4], Self.shape.row_octets]:
        """Multiplies the next panel.

        Args:
            problem: The operands and their sizes.
            layout: Where things lie in shared memory.
            schedule: The row tiles.
            weights: The warp's packed weights.

        Returns:
            For each eight rows, this lane's sums: two rows of one feature, then
            of the next.
        """
        var sums = Self._Sums(fill=SIMD[.float32, 4](0))
        var activations = self.activations
        var left = self.row_blocks
        while left > 0:
            var chunk = weights.chunk()
            var blocks = min(left, Int32(CHUNK_BLOCKS))
            if _any_large(chunk, blocks):
                for block in range(blocks):
                    self._multiply_block[0, two_steps=True](
                        sums,
                        _lane_codes(chunk, block),
                        _lane_scales(chunk, block),
                        _at_block[Self._BLOCK_ACTIVATIONS](activations, block),
                    )
            elif blocks == Int32(CHUNK_BLOCKS):
                var codes = _lane_codes(chunk, 0)
                var scales = _lane_scales(chunk, 0)
                comptime for block in range(CHUNK_BLOCKS):
                    self._multiply_block[block, two_steps=False](
                        sums,
                        codes.unsafe_offset(block * PANEL_BLOCK_BYTES),
                        scales.unsafe_offset(block * PANEL_FEATURES),
                        activations.unsafe_offset(
                            block * Self._BLOCK_ACTIVATIONS
                        ),
                    )
            else:
                for block in range(blocks):
                    self._multiply_block[0, two_steps=False](
                        sums,
                        _lane_codes(chunk, block),
                        _lane_scales(chunk, block),
                        _at_block[Self._BLOCK_ACTIVATIONS](activations, block),
                    )
            activations = _at_block[Self._BLOCK_ACTIVATIONS](
                activations, blocks
            )
            left -= blocks
            # Every lane has read the chunk.
            syncwarp()
            weights.next_chunk(problem, layout, schedule)
        var totals = StaticTuple[SIMD[.float32, 4], Self.shape.row_octets](
            fill=SIMD[.float32, 4](0)
        )
        comptime octets = Self.shape.row_octets
        comptime for octet in range(octets):
            comptime for chain in range(Self._CHAINS):
                totals[octet] += sums[chain * octets + octet]
        return totals

    @inline(.always)
    def _multiply_block[
        block: Int, *, two_steps: Bool
    ](
        self,
        mut sums: Self._Sums,
        codes: SharedPointer[UInt8],
        scales: SharedPointer[UInt8],
        activations: SharedPointer[UInt8],
    ):
        comptime octets = Self.shape.row_octets
        var words = bitcast[.uint32, 2](
            codes.unsafe_load[width=8, alignment=8](0)
        )
        var first: BlockScale
        var second: BlockScale
        comptime if two_steps:
            first = BlockScale(scales[])
            second = BlockScale(scales[unsafe_offset=1])
        else:
            first = BlockScale(small=scales[])
            second = BlockScale(small=scales[unsafe_offset=1])
        var even = expand_panel_word[two_steps](words[0], first)
        var odd = expand_panel_word[two_steps](words[1], second)
        comptime for octet in range(octets):
            var pairs = bitcast[.uint32, 4](
                activations.unsafe_load[width=16, alignment=16](
                    Int(fragment_index[octets](0, UInt32(octet)))
                    * FRAGMENT_BYTES
                )
            )
            comptime for half in range(2):
                comptime at = (
                    (2 * block + half) % Self._CHAINS * octets + octet
                )
                var sum = sums[at]
                mma(
                    sum,
                    bitcast[.bfloat16, 8](
                        SIMD[.uint32, 4](
                            even[2 * half],
                            odd[2 * half],
                            even[2 * half + 1],
                            odd[2 * half + 1],
                        )
                    ),
                    bitcast[.bfloat16, 4](
                        SIMD[.uint32, 2](pairs[2 * half], pairs[2 * half + 1])
                    ),
                    sum,
                )
                sums[at] = sum


@inline(.always)
def _at_block[
    bytes: Int
](start: SharedPointer[UInt8], block: Int32) -> SharedPointer[UInt8]:
    return start.unsafe_offset(Int(block * Int32(bytes)))


@inline(.always)
def _lane_codes(
    chunk: SharedPointer[UInt8], block: Int32
) -> SharedPointer[UInt8]:
    # This lane's words: of two neighbouring features.
    return _at_block[PANEL_BLOCK_BYTES](
        chunk.unsafe_offset(Int(lane_id()) * 8), block
    )


@inline(.always)
def _lane_scales(
    chunk: SharedPointer[UInt8], block: Int32
) -> SharedPointer[UInt8]:
    return _at_block[PANEL_FEATURES](
        chunk.unsafe_offset(CHUNK_SCALES + Int(lane_id()) // 4 * 2), block
    )


@inline(.always)
def _any_large(chunk: SharedPointer[UInt8], blocks: Int32) -> Bool:
    # Whether any scale may be over 128: those have their top bit set.
    comptime assert CHUNK_BLOCKS <= WARP_SIZE
    var bits = UInt32(0)
    if Int32(lane_id()) < blocks:
        bits = bitcast[.uint32, 4](
            _at_block[PANEL_FEATURES](
                chunk.unsafe_offset(CHUNK_SCALES), Int32(lane_id())
            ).unsafe_load[width=16, alignment=16](0)
        ).reduce_or()
    return warp.vote[.uint32](bits & 0x8080_8080 != 0) != 0


@inline(.always)
def _store[
    EpilogueType: Epilogue, row_octets: Int
](
    epilogue: EpilogueType,
    sums: StaticTuple[SIMD[.float32, 4], row_octets],
    row_tile: RowTile,
    first_row: Int32,
    first_feature: Int32,
):
    # The panel met all rows of the run, from `first_row` on: other experts'
    # sums are left out.
    var lane = Int32(lane_id())
    var feature = Int(first_feature + lane // 4 * 2)
    var row = first_row + lane % 4 * 2
    var in_tile = row - row_tile.first
    comptime for octet in range(row_octets):
        comptime for i in range(2):
            comptime at = Int32(octet * 8 + i)
            # One comparison, for what lies before the tile is huge.
            if UInt32(in_tile + at) < UInt32(row_tile.count):
                epilogue.store(
                    Int(row_tile.expert),
                    Int(row + at),
                    feature,
                    sums[octet][i],
                    sums[octet][2 + i],
                )


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

    Raises:
        Error: If an operand is not aligned, or the launch fails.
    """
    if (
        Int(problem.blocks) | Int(problem.scales) | Int(problem.activations)
    ) % 16 != 0:
        raise Error(
            "mxfp4_moe: blocks, scales and activations must start at a"
            " multiple of 16 bytes in device memory."
        )
    var layout = StreamLayout[shape](Int(problem.depth), Int(problem.groups))
    ctx.enqueue_function[
        _stream_kernel[RowMapType, EpilogueType, shape, tables_ready]
    ](
        problem,
        rows,
        epilogue,
        grid_dim=ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT),
        block_dim=shape.threads(),
        shared_mem_bytes=layout.shared_bytes(),
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(layout.shared_bytes())
        ),
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
