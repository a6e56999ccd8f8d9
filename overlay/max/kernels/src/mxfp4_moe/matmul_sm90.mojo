# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The grouped MXFP4 matmul on Hopper: packed weights in, tensor cores behind.

Weights are the tensor cores' A operand and activations their B, so that a few
rows of activations still fill a fragment. A thread reads packed weights 16
bytes at a time, one block of 32 elements of one weight row, straight from
device memory, a step ahead of their use, and expands them in registers.
Activations come through shared memory in stages of 128 elements along K. Each
warp of a thread block has features of its own and meets all rows of the tile.
"""

from std.math import ceildiv
from std.memory import Pointer, bitcast
from std.utils import StaticTuple

from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    WARP_SIZE,
    block_idx,
    lane_id,
    thread_idx,
    warp_id,
)
from max.gpu.compute.mma import mma
from max.gpu.host import DeviceContext, FuncAttribute
from max.gpu.memory import (
    async_copy_commit_group,
    async_copy_wait_group,
    external_memory,
)
from max.gpu.primitives import warp
from max.gpu.sync import barrier

from .activation_stage import (
    STAGE_DEPTH,
    UNIT_ELEMENTS,
    ActivationLoader,
    unit_offset,
)
from .alignment import require_alignment
from .epilogue import Epilogue
from .expand_sm90 import BlockScale, expand_word, pair_activations
from .mxfp4 import BLOCK_BYTES, BLOCK_ELEMENTS
from .problem import MatmulProblem, RowMap
from .tile_schedule import find_row_tile, max_row_tiles

comptime _FRAGMENT_FEATURES = 16
"""Rows of A in `mma.m16n8k16`."""

comptime _FRAGMENT_ROWS = 8
"""Columns of B in `mma.m16n8k16`."""

comptime _BLOCKS_PER_STAGE = STAGE_DEPTH // BLOCK_ELEMENTS


@fieldwise_init
struct TileShape(TrivialRegisterPassable):
    """The work of one thread block.

    The constants were chosen by measurement: see `docs/kernel-log.md`.
    """

    var feature_warps: Int
    """Warps side by side along the features."""
    var fragments: Int
    """Fragments of 16 features a warp."""
    var row_octets: Int
    """Groups of eight rows."""
    var stages: Int
    """Stages of activations in shared memory."""

    comptime FEW_ROWS = Self(4, 1, 2, 4)
    """A few rows an expert: many small tiles."""

    comptime MANY_ROWS = Self(4, 2, 6, 4)
    """Many rows an expert: each expanded fragment meets 48 of them. At 64 the
    accumulators leave too few registers, and spill."""

    @inline(.always)
    def features(self) -> Int:
        """Returns the features of a tile.

        Returns:
            The number.
        """
        return self.feature_warps * self.fragments * _FRAGMENT_FEATURES

    @inline(.always)
    def rows(self) -> Int:
        """Returns the rows of a tile.

        Returns:
            The number.
        """
        return self.row_octets * _FRAGMENT_ROWS

    @inline(.always)
    def threads(self) -> Int:
        """Returns the threads of a block.

        Returns:
            The number.
        """
        return self.feature_warps * WARP_SIZE

    @inline(.always)
    def stage_elements(self) -> Int:
        """Returns the BF16 elements of a stage.

        Returns:
            The number.
        """
        return self.rows() * STAGE_DEPTH

    @inline(.always)
    def shared_bytes(self) -> Int:
        """Returns the shared memory of a block: stages, then row numbers.

        Returns:
            The bytes.
        """
        return self.stages * self.stage_elements() * 2 + self.rows() * 4


struct PackedBlocks[fragments: Int](TrivialRegisterPassable):
    """One thread's packed weights of one step: a block of each of its rows.

    Parameters:
        fragments: Fragments of 16 features; a thread has two rows in each.
    """

    comptime _ROWS = 2 * Self.fragments

    var codes: StaticTuple[SIMD[.uint32, 4], Self._ROWS]
    """The blocks' elements."""
    var scales: StaticTuple[UInt8, Self._ROWS]
    """The blocks' scales."""

    @inline(.always)
    def __init__(out self):
        """Makes blocks of zeros."""
        self.codes = StaticTuple[SIMD[.uint32, 4], Self._ROWS](
            fill=SIMD[.uint32, 4](0)
        )
        self.scales = StaticTuple[UInt8, Self._ROWS](fill=0)

    @inline(.always)
    def load(
        mut self,
        problem: MatmulProblem,
        expert_row: Int,
        weight_rows: StaticTuple[Int32, Self._ROWS],
        block: Int,
    ):
        """Starts reading one block of each row; zeros past the last block.

        Args:
            problem: The operands and their sizes.
            expert_row: The expert's first row in the stack.
            weight_rows: The rows, counted from there.
            block: The block along K.
        """
        var blocks = problem.blocks.unsafe_address_space_cast[.GLOBAL]()
        var scales = problem.scales.unsafe_address_space_cast[.GLOBAL]()
        var row_blocks = Int(problem.depth) // BLOCK_ELEMENTS
        comptime for i in range(Self._ROWS):
            if block < row_blocks:
                var row = expert_row + Int(weight_rows[i])
                var index = row * row_blocks + block
                self.codes[i] = bitcast[.uint32, 4](
                    blocks.unsafe_load[
                        width=BLOCK_BYTES, alignment=BLOCK_BYTES, invariant=True
                    ](index * BLOCK_BYTES)
                )
                self.scales[i] = scales.unsafe_load[invariant=True](index)
            else:
                self.codes[i] = SIMD[.uint32, 4](0)
                self.scales[i] = 0

    @inline(.always)
    def any_large_scale(self) -> Bool:
        """Returns whether any lane of the warp holds a scale byte over 128.

        Returns:
            True if so, in every lane.
        """
        var large = False
        comptime for i in range(Self._ROWS):
            large |= self.scales[i] > 128
        return warp.vote[.uint32](large) != 0


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(tile.threads()))
)
@__name(t"mxfp4_moe_matmul_{tile.features()}x{tile.rows()}_{EpilogueType.NAME}")
def _grouped_matmul_kernel[
    RowMapType: RowMap, EpilogueType: Epilogue, tile: TileShape
](problem: MatmulProblem, rows: RowMapType, epilogue: EpilogueType):
    comptime fragments = tile.fragments
    comptime stage_size = tile.stage_elements()

    var row_tile = find_row_tile[tile.rows()](problem, Int(block_idx.y))
    if row_tile.count == 0:
        return

    var features = Int(problem.features)
    var lane = Int(lane_id())
    var quad_row = lane // 4
    var quad = lane % 4
    var first_feature = (
        (Int(block_idx.x) * tile.feature_warps + Int(warp_id()))
        * fragments
        * _FRAGMENT_FEATURES
    )

    # A thread's two rows of a fragment are neighbouring features, which the
    # epilogue wants as a pair; nothing else depends on the order.
    if row_tile.expert < 0:
        comptime for f in range(fragments):
            var feature = first_feature + f * _FRAGMENT_FEATURES + 2 * quad_row
            if feature < features:
                for row in range(quad, Int(row_tile.count), 4):
                    epilogue.store_empty(Int(row_tile.first) + row, feature)
        return

    var expert_row = Int(row_tile.expert) * features
    var weight_rows = StaticTuple[Int32, 2 * fragments](fill=0)
    comptime for f in range(fragments):
        comptime for i in range(2):
            var feature = (
                first_feature + f * _FRAGMENT_FEATURES + 2 * quad_row + i
            )
            # Past the last feature any row will do: nothing is stored.
            weight_rows[2 * f + i] = Int32(min(feature, features - 1))

    var shared = external_memory[
        BFloat16, address_space=.SHARED, alignment=16
    ]()
    var loader = ActivationLoader[RowMapType, tile.rows(), tile.threads()](
        problem,
        rows,
        Int(row_tile.first),
        Int(row_tile.count),
        Int(thread_idx.x),
        shared.unsafe_offset(tile.stages * stage_size).unsafe_bitcast[Int32](),
    )

    var depth = Int(problem.depth)
    var steps = ceildiv(depth, STAGE_DEPTH)
    comptime for s in range(tile.stages - 1):
        if s < steps:
            loader.load(shared.unsafe_offset(s * stage_size), s * STAGE_DEPTH)
        async_copy_commit_group()

    var next_blocks = PackedBlocks[fragments]()
    next_blocks.load(problem, expert_row, weight_rows, quad)

    var sums = StaticTuple[SIMD[.float32, 4], fragments * tile.row_octets](
        fill=SIMD[.float32, 4](0)
    )
    for step in range(steps):
        # This step's stage has arrived, and every warp has left the stage
        # that the next copies overwrite.
        async_copy_wait_group(Int32(tile.stages - 2))
        barrier()
        var ahead = step + tile.stages - 1
        if ahead < steps:
            loader.load(
                shared.unsafe_offset((ahead % tile.stages) * stage_size),
                ahead * STAGE_DEPTH,
            )
        async_copy_commit_group()

        var blocks = next_blocks
        next_blocks.load(
            problem,
            expert_row,
            weight_rows,
            (step + 1) * _BLOCKS_PER_STAGE + quad,
        )
        var stage = shared.unsafe_offset((step % tile.stages) * stage_size)
        if blocks.any_large_scale():
            _multiply[tile, two_steps=True](sums, blocks, stage, quad_row, quad)
        else:
            _multiply[tile, two_steps=False](
                sums, blocks, stage, quad_row, quad
            )

    var first_row = Int(row_tile.first) + 2 * quad
    var rows_left = Int(row_tile.count) - 2 * quad
    comptime for f in range(fragments):
        var feature = first_feature + f * _FRAGMENT_FEATURES + 2 * quad_row
        if feature < features:
            comptime for octet in range(tile.row_octets):
                var sum = sums[f * tile.row_octets + octet]
                comptime for i in range(2):
                    comptime row = octet * _FRAGMENT_ROWS + i
                    if row < rows_left:
                        epilogue.store(
                            Int(row_tile.expert),
                            first_row + row,
                            feature,
                            sum[i],
                            sum[2 + i],
                        )


@inline(.always)
def _multiply[
    fragments: Int, //, tile: TileShape, *, two_steps: Bool
](
    mut sums: StaticTuple[SIMD[.float32, 4], fragments * tile.row_octets],
    blocks: PackedBlocks[fragments],
    stage: Pointer[BFloat16, MutUntrackedOrigin, address_space=.SHARED],
    quad_row: Int,
    quad: Int,
):
    var scales = StaticTuple[BlockScale, 2 * fragments](fill=BlockScale(0))
    comptime for i in range(2 * fragments):
        scales[i] = BlockScale(blocks.scales[i])

    # A word of codes is eight elements along K for each of four threads: two
    # tensor-core steps of 16.
    comptime for unit in range(BLOCK_ELEMENTS // UNIT_ELEMENTS):
        var weights = StaticTuple[SIMD[.uint32, 4], 2 * fragments](
            fill=SIMD[.uint32, 4](0)
        )
        comptime for i in range(2 * fragments):
            weights[i] = expand_word[two_steps](
                blocks.codes[i][unit], scales[i]
            )
        comptime for octet in range(tile.row_octets):
            var activations = pair_activations(
                bitcast[.uint32, 4](
                    stage.unsafe_load[width=UNIT_ELEMENTS, alignment=16](
                        unit_offset(octet, unit, quad_row, quad)
                    )
                )
            )
            comptime for half in range(2):
                var b = bitcast[.bfloat16, 4](
                    SIMD[.uint32, 2](
                        activations[2 * half], activations[2 * half + 1]
                    )
                )
                comptime for f in range(fragments):
                    var a = bitcast[.bfloat16, 8](
                        SIMD[.uint32, 4](
                            weights[2 * f][2 * half],
                            weights[2 * f + 1][2 * half],
                            weights[2 * f][2 * half + 1],
                            weights[2 * f + 1][2 * half + 1],
                        )
                    )
                    var sum = sums[f * tile.row_octets + octet]
                    mma(sum, a, b, sum)
                    sums[f * tile.row_octets + octet] = sum


def grouped_matmul_sm90[
    RowMapType: RowMap, EpilogueType: Epilogue, //, tile: TileShape
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    ctx: DeviceContext,
) raises:
    """Enqueues a grouped MXFP4 matmul on a Hopper GPU, in one launch.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        EpilogueType: What happens to each pair of sums.
        tile: The work of one thread block.

    Args:
        problem: The operands and their sizes, in device memory; `blocks` and
            `activations` start at a multiple of 16 bytes.
        rows: Maps a routed row to its activation row.
        epilogue: Receives the float32 sums of two neighbouring features.
        ctx: The device.

    Raises:
        Error: If an operand is not aligned, or the launch fails.
    """
    require_alignment(
        "blocks and activations",
        Int(problem.blocks) | Int(problem.activations),
    )
    comptime shared_bytes = tile.shared_bytes()
    ctx.enqueue_function[
        _grouped_matmul_kernel[RowMapType, EpilogueType, tile]
    ](
        problem,
        rows,
        epilogue,
        grid_dim=(
            ceildiv(Int(problem.features), tile.features()),
            max_row_tiles(problem, tile.rows()),
        ),
        block_dim=tile.threads(),
        shared_mem_bytes=shared_bytes,
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(shared_bytes)
        ),
    )
