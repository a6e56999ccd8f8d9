# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The grouped MXFP4 matmul on Hopper for few rows: weights at memory speed.

One thread block an SM, whose warps each keep a stream of packed weights of
their own on the way. A warp meets a panel of 16 features with the activations
of a run of row tiles, which stay in shared memory for all of the run's panels;
the warps take panels in turn and wait for each other only between runs.
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
from max.gpu.primitives import block, warp
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import syncwarp

from .activation_rows import activation_unit, load_activations
from .epilogue import Epilogue
from .expand_sm90 import BlockScale, expand_word
from .mxfp4 import BLOCK_BYTES
from .problem import MatmulProblem, RowMap
from .stream_layout import (
    HALF_BLOCKS,
    HALF_BYTES,
    LANE_ROWS,
    STEP_BLOCKS,
    SharedPointer,
    StreamLayout,
    StreamShape,
)
from .stream_schedule import PANEL_FEATURES, GroupTiles, UnitSchedule
from .tile_schedule import RowTile
from .weight_stream import WeightStream


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(shape.threads()))
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
        shared.unsafe_offset(layout.schedule()).unsafe_bitcast[GroupTiles](),
        Int(problem.groups),
        shape.rows(),
    )
    comptime if not tables_ready:
        wait_on_dependent_grids()
        launch_dependent_grids()
    var row_tiles = schedule.build(problem, shape.threads())

    var panels = Int(problem.features) // PANEL_FEATURES
    var units = row_tiles * panels
    var first_unit = units * Int(block_idx.x) // Int(grid_dim.x)
    var end_unit = units * (Int(block_idx.x) + 1) // Int(grid_dim.x)
    var mine = first_unit + Int(warp_id())
    var weights = WeightStream[shape](
        problem, layout, shared, schedule, mine, end_unit
    )
    for _ in range(shape.slots):
        weights.copy_step(problem, layout, schedule)
    comptime if tables_ready:
        wait_on_dependent_grids()
        launch_dependent_grids()

    var panel = WarpPanel[shape](layout, shared)
    var my_tile = -1
    var row_tile = RowTile(-1, 0, 0)
    var unit = first_unit
    while unit < end_unit:
        var run = schedule.tile_run(unit // panels, ceildiv(end_unit, panels))
        var run_end = min(end_unit, run.end_tile * panels)
        load_activations(problem, rows, layout, shared, run)
        while mine < run_end:
            var sums = panel.multiply(problem, schedule, weights)
            var tile, tile_panel = divmod(mine, panels)
            if tile != my_tile:
                my_tile = tile
                row_tile = schedule.row_tile(tile)
            _store(
                epilogue,
                sums,
                row_tile,
                run.first_row,
                tile_panel * PANEL_FEATURES,
            )
            mine += shape.warps
        unit = run_end

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

    var shared: SharedPointer[UInt8]
    """The block's shared memory."""
    var layout: StreamLayout[Self.shape]
    """Where things lie in it."""
    var set: Int32
    """Which of the two sets of scales the next panel has."""

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
        self.shared = shared
        self.layout = layout
        self.set = 0

    @inline(.always)
    def multiply(
        mut self,
        problem: MatmulProblem,
        schedule: UnitSchedule,
        mut weights: WeightStream[Self.shape],
    ) -> StaticTuple[SIMD[.float32, 4], Self.shape.row_octets]:
        """Multiplies the next panel.

        Args:
            problem: The operands and their sizes.
            schedule: The row tiles.
            weights: The warp's packed weights.

        Returns:
            For each eight rows, this lane's sums: two rows of one feature, then
            of the next.
        """
        var sums = Self._Sums(fill=SIMD[.float32, 4](0))
        var scales = Int32(self.layout.scales(Int(warp_id()), Int(self.set)))
        self.set ^= 1
        # The scales come with the first step, some of each from every lane.
        weights.wait()
        syncwarp()
        if _any_large(
            self.shared.unsafe_offset(Int(scales)), self.layout.scale_bytes()
        ):
            self._multiply_steps[two_steps=True](
                sums, scales, problem, schedule, weights
            )
        else:
            self._multiply_steps[two_steps=False](
                sums, scales, problem, schedule, weights
            )
        var totals = StaticTuple[SIMD[.float32, 4], Self.shape.row_octets](
            fill=SIMD[.float32, 4](0)
        )
        comptime octets = Self.shape.row_octets
        comptime for octet in range(octets):
            comptime for chain in range(Self._CHAINS):
                totals[octet] += sums[chain * octets + octet]
        return totals

    @inline(.always)
    def _multiply_steps[
        *, two_steps: Bool
    ](
        self,
        mut sums: Self._Sums,
        panel_scales: Int32,
        problem: MatmulProblem,
        schedule: UnitSchedule,
        mut weights: WeightStream[Self.shape],
    ):
        var quad_row, quad = divmod(Int32(lane_id()), HALF_BLOCKS)
        var row_blocks = Int32(self.layout.row_blocks())
        var scales = StaticTuple[Int32, LANE_ROWS](
            panel_scales + Int32(LANE_ROWS) * quad_row * row_blocks + quad
        )
        scales[1] = scales[0] + row_blocks
        var activations = Int32(self.layout.activations()) + Int32(
            lane_id() * 16
        )
        for _ in range(row_blocks // Int32(STEP_BLOCKS)):
            weights.wait()
            comptime for half in range(2):
                self._multiply_half[half, two_steps=two_steps](
                    sums, weights.slot, scales, activations, True
                )
            weights.copy_step(problem, self.layout, schedule)
            comptime for row in range(LANE_ROWS):
                scales[row] += Int32(STEP_BLOCKS)
            activations += Int32(2 * _activation_stride[Self.shape]())
        var rest = row_blocks % Int32(STEP_BLOCKS)
        if rest > 0:
            weights.wait()
            comptime for half in range(2):
                if rest > Int32(half * HALF_BLOCKS):
                    # A lane without a block finds an older one's bytes, and
                    # takes no scale.
                    self._multiply_half[half, two_steps=two_steps](
                        sums,
                        weights.slot,
                        scales,
                        activations,
                        quad + Int32(half * HALF_BLOCKS) < rest,
                    )
            weights.copy_step(problem, self.layout, schedule)

    @inline(.always)
    def _multiply_half[
        half: Int, *, two_steps: Bool
    ](
        self,
        mut sums: Self._Sums,
        slot: Int32,
        scales: StaticTuple[Int32, LANE_ROWS],
        activations: Int32,
        present: Bool,
    ):
        comptime assert Self.shape.row_octets in (1, 2)
        comptime octets = Self.shape.row_octets
        var source = self.shared.unsafe_offset(Int(slot) + half * HALF_BYTES)
        var codes = StaticTuple[SIMD[.uint32, 4], LANE_ROWS](
            fill=SIMD[.uint32, 4](0)
        )
        var factors = StaticTuple[BlockScale, LANE_ROWS](fill=BlockScale.ZERO)
        comptime for row in range(LANE_ROWS):
            codes[row] = bitcast[.uint32, 4](
                source.unsafe_load[width=BLOCK_BYTES, alignment=BLOCK_BYTES](
                    row * WARP_SIZE * BLOCK_BYTES
                )
            )
            if present:
                var scale = self.shared[
                    unsafe_offset=Int(scales[row]) + half * HALF_BLOCKS
                ]
                comptime if two_steps:
                    factors[row] = BlockScale(scale)
                else:
                    factors[row] = BlockScale(small=scale)
        var stage = self.shared.unsafe_offset(
            Int(activations) + half * _activation_stride[Self.shape]()
        ).unsafe_bitcast[UInt32]()
        comptime for unit in range(4):
            var even = expand_word[two_steps](codes[0][unit], factors[0])
            var odd = expand_word[two_steps](codes[1][unit], factors[1])
            comptime for octet in range(octets):
                var units = stage.unsafe_load[width=4, alignment=16](
                    activation_unit[octets](0, octet, unit) * 4
                )
                comptime for pair in range(2):
                    comptime at = (
                        (2 * half + pair) % Self._CHAINS * octets + octet
                    )
                    var sum = sums[at]
                    mma(
                        sum,
                        bitcast[.bfloat16, 8](
                            SIMD[.uint32, 4](
                                even[2 * pair],
                                odd[2 * pair],
                                even[2 * pair + 1],
                                odd[2 * pair + 1],
                            )
                        ),
                        bitcast[.bfloat16, 4](
                            SIMD[.uint32, 2](
                                units[2 * pair], units[2 * pair + 1]
                            )
                        ),
                        sum,
                    )
                    sums[at] = sum


def _activation_stride[shape: StreamShape]() -> Int:
    # Bytes of activations from one half step to the next.
    return activation_unit[shape.row_octets](1, 0, 0) * 16


@inline(.always)
def _any_large(scales: SharedPointer[UInt8], bytes: Int) -> Bool:
    # Whether any scale may be over 128: those have their top bit set.
    var bits = UInt32(0)
    for at in range(Int(lane_id()) * 16, bytes, WARP_SIZE * 16):
        bits |= bitcast[.uint32, 4](
            scales.unsafe_load[width=16, alignment=16](at)
        ).reduce_or()
    return warp.vote[.uint32](bits & 0x8080_8080 != 0) != 0


@inline(.always)
def _store[
    EpilogueType: Epilogue, row_octets: Int
](
    epilogue: EpilogueType,
    sums: StaticTuple[SIMD[.float32, 4], row_octets],
    row_tile: RowTile,
    first_row: Int,
    first_feature: Int,
):
    # The panel met all rows of the run, from `first_row` on: other experts'
    # sums are left out.
    var quad_row, quad = divmod(Int(lane_id()), 4)
    var feature = first_feature + 2 * quad_row
    var row = Int32(first_row + 2 * quad)
    var in_tile = row - Int32(row_tile.first)
    comptime for octet in range(row_octets):
        comptime for i in range(2):
            comptime at = Int32(octet * 8 + i)
            # One comparison, for what lies before the tile is huge.
            if UInt32(in_tile + at) < UInt32(row_tile.count):
                epilogue.store(
                    row_tile.expert,
                    Int(row + at),
                    feature,
                    sums[octet][i],
                    sums[octet][2 + i],
                )


@inline(.always)
def _store_empty_rows[
    EpilogueType: Epilogue, //, threads: Int
](problem: MatmulProblem, epilogue: EpilogueType):
    # Rows of no expert are rare: the padding of expert-parallel callers.
    var lost = False
    for group in range(Int(thread_idx.x) - 1, Int(problem.groups) + 1, threads):
        var first, end = problem.group_bounds(group)
        lost |= end > first and problem.group_expert(group) < 0
    if not block.max[block_size=threads, broadcast=True](Int32(lost)):
        return
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
