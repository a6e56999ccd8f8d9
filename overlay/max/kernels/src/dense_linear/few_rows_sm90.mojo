# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A BF16 linear layer on Hopper for 2 to 64 rows: weights at memory speed.

Such a layer takes as long as its weights take to arrive, if all of the GPU asks
for them. Tiles of features alone are too few for that, so K is cut as well: the
thread blocks of a cluster share a tile of features and each takes a slice of K.
Their sums meet in shared memory, always added in the same order.

Weights go from memory to registers, eight or so blocks of K ahead of their use.
A lane loads 16 bytes of a feature at once, so it has eight neighbours of K
where an `mma` wants two pairs eight apart. The sum does not care for the order
of K, so activations are met in the order that the weights have.
"""

from std.math import ceildiv
from std.memory import bitcast
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
from max.gpu.host import DeviceContext, Dim, FuncAttribute
from max.gpu.memory import (
    async_copy,
    async_copy_wait_all,
    external_memory,
)
from max.gpu.primitives.cluster import cluster_sync
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier

from .cluster_memory import SharedPointer, load_from_block
from .problem import LinearProblem, TensorPointer

comptime MIN_ROWS = 2
"""Fewer rows are a matrix-vector product, for which upstream has a kernel."""

comptime MAX_ROWS = 64
"""More rows make enough tiles for upstream's matmul."""

comptime _BLOCK = 32
# What a warp takes of K at once: 16 bytes of a feature for each lane of a quad.

comptime _MMA_FEATURES = 16
comptime _MAX_WARP_FEATURES = 32
comptime _WARPS = 8
comptime _THREADS = _WARPS * WARP_SIZE

comptime _LANE = 8
# Neighbours of K that a lane loads at once.

comptime _FRAGMENT = WARP_SIZE * _LANE
# Activations of eight rows and one block.

comptime _GPU_BLOCKS = 112
# Thread blocks that run at once on an H100 or H200 whatever its clusters leave
# idle: one an SM, for their registers.

comptime _MAX_SHARED_BYTES = 227 * 1024


@fieldwise_init
struct FewRowsShape(TrivialRegisterPassable):
    """How thread blocks share a layer out."""

    var row_octets: Int
    """Groups of eight rows: 1, 2, 4 or 8."""
    var warp_features: Int
    """Features of a warp, 16 or 32."""
    var feature_warps: Int
    """Warps of a block that differ in features; the others of its eight differ
    in K."""
    var slices: Int
    """Slices of K, each a block of the cluster: 1, 2, 4 or 8."""

    @staticmethod
    def of(features: Int, row_octets: Int) -> Self:
        """Chooses the shape for a layer.

        Args:
            features: N.
            row_octets: Groups of eight rows.

        Returns:
            The shape.
        """
        # Large tiles read activations seldom; small layers have none to make.
        var shape = Self(row_octets, 32, 4, 1)
        if features < shape.features() * _GPU_BLOCKS // 8:
            shape = Self(row_octets, 16, 1, 1)
        var tiles = ceildiv(features, shape.features())
        while shape.slices < 8 and tiles * shape.slices * 2 <= _GPU_BLOCKS:
            shape.slices *= 2
        return shape

    @inline(.always)
    def features(self) -> Int:
        """Counts the features of a tile.

        Returns:
            The features.
        """
        return self.feature_warps * self.warp_features

    @inline(.always)
    def depth_warps(self) -> Int:
        """Counts the warps of a block that share its features.

        Returns:
            The warps.
        """
        return _WARPS // self.feature_warps

    @inline(.always)
    def groups(self) -> Int:
        """Counts what one `mma` takes of a warp's features.

        Returns:
            Groups of sixteen features.
        """
        return self.warp_features // _MMA_FEATURES

    @inline(.always)
    def sum_stride(self) -> Int:
        """Spaces a warp's sums of two rows.

        Returns:
            More than there are features, so that lanes store to different
            banks, in elements.
        """
        return self.warp_features + 4

    @inline(.always)
    def rows(self) -> Int:
        """Counts the rows that there is room for.

        Returns:
            The rows.
        """
        return self.row_octets * 8

    @inline(.always)
    def slice_blocks(self, depth: Int) -> Int:
        """Counts the blocks of the longest slice.

        Args:
            depth: K.

        Returns:
            The blocks.
        """
        return ceildiv(depth // _BLOCK, self.slices)

    @inline(.always)
    def warp_blocks(self, depth: Int) -> Int:
        """Counts the blocks of the warp that has most.

        Args:
            depth: K.

        Returns:
            The blocks.
        """
        return ceildiv(self.slice_blocks(depth), self.depth_warps())

    @inline(.always)
    def shared_bytes(self, depth: Int) -> Int:
        """Sizes a block's shared memory.

        Activations are in it first, then sums.

        Args:
            depth: K.

        Returns:
            The bytes.
        """
        return max(
            self.slice_blocks(depth) * self.row_octets * _FRAGMENT * 2,
            _WARPS * self.rows() * self.sum_stride() * 4,
        )


@inline(.always)
def _row_octets(rows: Int) -> Int:
    var octets = 1
    while octets * 8 < rows:
        octets *= 2
    return octets


def takes_few_rows[
    features: Int, depth: Int, has_bias: Bool, //
](problem: LinearProblem[features, depth, has_bias]) -> Bool:
    """Tells whether this kernel takes a layer.

    Parameters:
        features: N.
        depth: K.
        has_bias: Whether there is a bias to add.

    Args:
        problem: The operands.

    Returns:
        Whether it does: from 2 to 64 rows, where tiles of features alone would
        not fill the GPU, operands are aligned and a slice's activations fit
        into shared memory.
    """
    comptime if not _takes_sizes(features, depth):
        return False
    return (
        MIN_ROWS <= problem.rows <= MAX_ROWS
        and (Int(problem.x) | Int(problem.weight) | Int(problem.output)) % 16
        == 0
    )


def _takes_sizes(features: Int, depth: Int) -> Bool:
    var shape = FewRowsShape.of(features, MAX_ROWS // 8)
    return (
        features % _MAX_WARP_FEATURES == 0
        and depth % _BLOCK == 0
        and ceildiv(features, shape.features()) <= _GPU_BLOCKS
        and shape.shared_bytes(depth) <= _MAX_SHARED_BYTES
    )


@inline(.always)
def _share(blocks: Int, parts: Int, part: Int32) -> Int32:
    # The blocks before a part. Parts differ by one block at most.
    var each = Int32(blocks // parts)
    return each * part + min(part, Int32(blocks % parts))


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(_THREADS)),
    `nvvm.cluster_dim`=StaticTuple[Int32, 3](Int32(shape.slices), 1, 1),
    `nvvm.minctasm`=Int(1).__mlir_index__(),
)
@__name(t"dense_linear_{features}x{depth}_{shape.row_octets}_octets_{has_bias}")
def _few_rows_kernel[
    features: Int, depth: Int, has_bias: Bool, shape: FewRowsShape
](
    output: TensorPointer[BFloat16],
    x: TensorPointer[BFloat16],
    weight: TensorPointer[BFloat16],
    bias: TensorPointer[BFloat16],
    rows: Int32,
):
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=128]()
    var cluster = Int32(UInt32(block_idx.x) // UInt32(shape.slices))
    var slice = Int32(block_idx.x) - cluster * Int32(shape.slices)
    var first_feature = cluster * Int32(shape.features())
    var first = _share(depth // _BLOCK, shape.slices, slice)
    var end = _share(depth // _BLOCK, shape.slices, slice + 1)

    var depth_warp = Int32(warp_id()) // Int32(shape.feature_warps)
    var feature = first_feature + Int32(warp_id()) % Int32(
        shape.feature_warps
    ) * Int32(shape.warp_features)
    # The last tile may have fewer features; a warp has all of its, or none.
    var blocks = end - first
    var mine = Int32(0)
    var mine_end = Int32(0)
    if feature < Int32(features):
        mine = blocks * depth_warp // Int32(shape.depth_warps())
        mine_end = blocks * (depth_warp + 1) // Int32(shape.depth_warps())

    comptime ahead = min(8 // shape.groups(), shape.warp_blocks(depth))
    var weights = WeightRows[ahead, shape.groups(), depth](
        weight, feature, first + mine, mine_end - mine
    )
    wait_on_dependent_grids()
    launch_dependent_grids()
    _load_activations[depth, shape](x, shared, first, blocks, rows)
    var sums = _multiply[depth, shape](weights, shared, mine, mine_end)
    # Sums take the place of activations.
    barrier()
    _keep_sums[shape](shared, sums)
    comptime if shape.depth_warps() > 1:
        barrier()
        _add_warps[shape](shared, rows)
    cluster_sync()
    _add_slices[shape](
        LinearProblem[features, depth, has_bias](
            output, x, weight, bias, rows=Int(rows)
        ),
        shared,
        slice,
        first_feature,
    )
    # Other blocks read this one's sums until here.
    cluster_sync()


struct WeightRows[ahead: Int, groups: Int, depth: Int](TrivialRegisterPassable):
    """A warp's weights, some blocks of K ahead of their use.

    Parameters:
        ahead: Blocks on their way.
        groups: Groups of sixteen features.
        depth: K.
    """

    var first: TensorPointer[BFloat16]
    """Where this lane's part of the first block of its first feature is."""
    var last: Int32
    """The warp's last block, counted from its first; -1 without blocks."""
    var values: StaticTuple[SIMD[.uint32, 4], 2 * Self.groups * Self.ahead]
    """What is on its way: of each block, features eight apart."""

    @inline(.always)
    def __init__(
        out self,
        weight: TensorPointer[BFloat16],
        feature: Int32,
        first_block: Int32,
        blocks: Int32,
    ):
        """Starts the first loads.

        Args:
            weight: The layer's weights.
            feature: The warp's first feature.
            first_block: Its first block of K.
            blocks: Its number of blocks.
        """
        var lane = Int(lane_id())
        self.first = weight.unsafe_offset(
            (Int(feature) + lane // 4) * Self.depth
            + Int(first_block) * _BLOCK
            + lane % 4 * _LANE
        )
        self.last = blocks - 1
        self.values = StaticTuple[
            SIMD[.uint32, 4], 2 * Self.groups * Self.ahead
        ](fill=0)
        if blocks > 0:
            comptime for i in range(Self.ahead):
                self.load[i](Int32(i))

    @inline(.always)
    def load[at: Int](mut self, block: Int32):
        """Starts loading a block, or the last one again where there is none.

        Parameters:
            at: Its place among those on their way.

        Args:
            block: The block, counted from the warp's first.
        """
        var source = self.first.unsafe_address_space_cast[
            .GLOBAL
        ]().unsafe_offset(Int(min(block, self.last)) * _BLOCK)
        comptime for octet in range(2 * Self.groups):
            self.values[2 * Self.groups * at + octet] = bitcast[.uint32, 4](
                source.unsafe_load[width=_LANE, alignment=16](
                    octet * 8 * Self.depth
                )
            )

    @inline(.always)
    def operand[at: Int, group: Int, half: Int](self) -> SIMD[.bfloat16, 8]:
        """Puts an `mma`'s weights together.

        Parameters:
            at: The block's place among those on their way.
            group: The group of sixteen features.
            half: Which sixteen of the block.

        Returns:
            The weights.
        """
        comptime octet = 2 * (Self.groups * at + group)
        var upper = self.values[octet]
        var lower = self.values[octet + 1]
        return bitcast[.bfloat16, 8](
            SIMD[.uint32, 4](
                upper[2 * half],
                lower[2 * half],
                upper[2 * half + 1],
                lower[2 * half + 1],
            )
        )


@inline(.always)
def _load_activations[
    depth: Int, shape: FewRowsShape
](
    x: TensorPointer[BFloat16],
    shared: SharedPointer[UInt8],
    first: Int32,
    blocks: Int32,
    rows: Int32,
):
    # In the order of fragments: for each block and eight rows, the lanes' 16
    # bytes side by side. Rows that do not exist only reach their own columns
    # of sums, which nobody stores.
    var target = shared.unsafe_bitcast[BFloat16]()
    var source = x.unsafe_address_space_cast[.GLOBAL]().unsafe_offset(
        Int(first) * _BLOCK
    )
    for row in range(Int32(warp_id()), rows, Int32(_WARPS)):
        for piece in range(Int32(lane_id()), blocks * 4, Int32(WARP_SIZE)):
            var fragment = piece // 4 * Int32(shape.row_octets) + row // 8
            async_copy[16](
                source.unsafe_offset(Int(row) * depth + Int(piece) * _LANE),
                target.unsafe_offset(
                    Int(fragment * Int32(_FRAGMENT))
                    + Int(row % 8 * 4 + piece % 4) * _LANE
                ),
            )
    async_copy_wait_all()
    barrier()


@inline(.always)
def _multiply[
    depth: Int, shape: FewRowsShape, ahead: Int
](
    mut weights: WeightRows[ahead, shape.groups(), depth],
    shared: SharedPointer[UInt8],
    first: Int32,
    end: Int32,
) -> StaticTuple[SIMD[.float32, 4], shape.groups() * shape.row_octets]:
    # Returns, for each group of features and eight rows, two rows of one
    # feature, then of another.
    comptime octets = shape.row_octets
    comptime groups = shape.groups()
    comptime tiles = groups * octets
    # Sums of the same row, so that no product waits for the one before it.
    comptime chains = max(1, 4 // tiles)
    var sums = StaticTuple[SIMD[.float32, 4], chains * tiles](
        fill=SIMD[.float32, 4](0)
    )
    var activations = shared.unsafe_bitcast[BFloat16]().unsafe_offset(
        Int(first) * octets * _FRAGMENT + Int(lane_id()) * _LANE
    )
    var blocks = end - first
    for base in range(Int32(0), blocks, Int32(ahead)):
        comptime for i in range(ahead):
            if base + Int32(i) < blocks:
                comptime for octet in range(octets):
                    var x = bitcast[.uint32, 4](
                        activations.unsafe_load[width=_LANE, alignment=16](
                            (i * octets + octet) * _FRAGMENT
                        )
                    )
                    comptime for half in range(2):
                        comptime for group in range(groups):
                            comptime at = (
                                (2 * i + half) % chains * tiles
                                + group * octets
                                + octet
                            )
                            var sum = sums[at]
                            mma(
                                sum,
                                weights.operand[i, group, half](),
                                bitcast[.bfloat16, 4](
                                    SIMD[.uint32, 2](
                                        x[2 * half], x[2 * half + 1]
                                    )
                                ),
                                sum,
                            )
                            sums[at] = sum
                weights.load[i](base + Int32(i + ahead))
        activations = activations.unsafe_offset(ahead * octets * _FRAGMENT)
    var totals = StaticTuple[SIMD[.float32, 4], tiles](
        fill=SIMD[.float32, 4](0)
    )
    comptime for tile in range(tiles):
        comptime for chain in range(chains):
            totals[tile] += sums[chain * tiles + tile]
    return totals


@inline(.always)
def _sums_of_row[
    shape: FewRowsShape
](shared: SharedPointer[UInt8], of_warp: Int32, row: Int32) -> SharedPointer[
    Float32
]:
    return shared.unsafe_bitcast[Float32]().unsafe_offset(
        Int((of_warp * Int32(shape.rows()) + row) * Int32(shape.sum_stride()))
    )


@inline(.always)
def _keep_sums[
    shape: FewRowsShape
](
    shared: SharedPointer[UInt8],
    sums: StaticTuple[SIMD[.float32, 4], shape.groups() * shape.row_octets],
):
    var lane = Int32(lane_id())
    comptime for octet in range(shape.row_octets):
        comptime for i in range(2):
            var target = _sums_of_row[shape](
                shared,
                Int32(warp_id()),
                lane % 4 * 2 + Int32(octet * 8 + i),
            ).unsafe_offset(Int(lane // 4))
            comptime for group in range(shape.groups()):
                var sum = sums[group * shape.row_octets + octet]
                target[unsafe_offset=group * _MMA_FEATURES] = sum[i]
                target[unsafe_offset=group * _MMA_FEATURES + 8] = sum[2 + i]


@inline(.always)
def _quad_sums[
    shape: FewRowsShape
](
    shared: SharedPointer[UInt8], depth_warp: Int32, row: Int32, quad: Int32
) -> SharedPointer[Float32]:
    # Four features of a row, as the warps of one share of K summed them up.
    comptime warp_quads = Int32(shape.warp_features // 4)
    return _sums_of_row[shape](
        shared,
        depth_warp * Int32(shape.feature_warps) + quad // warp_quads,
        row,
    ).unsafe_offset(Int(quad % warp_quads) * 4)


@inline(.always)
def _add_warps[shape: FewRowsShape](shared: SharedPointer[UInt8], rows: Int32):
    # Adds the block's shares of K to the first.
    comptime quads = Int32(shape.features() // 4)
    for i in range(Int32(thread_idx.x), rows * quads, Int32(_THREADS)):
        var row = i // quads
        var quad = i % quads
        var target = _quad_sums[shape](shared, 0, row, quad)
        var total = target.unsafe_load[width=4, alignment=16](0)
        comptime for depth_warp in range(1, shape.depth_warps()):
            total += _quad_sums[shape](
                shared, Int32(depth_warp), row, quad
            ).unsafe_load[width=4, alignment=16](0)
        target.unsafe_store[alignment=16](0, total)


@inline(.always)
def _add_slices[
    features: Int, depth: Int, has_bias: Bool, //, shape: FewRowsShape
](
    problem: LinearProblem[features, depth, has_bias],
    shared: SharedPointer[UInt8],
    slice: Int32,
    first_feature: Int32,
):
    # All threads of the cluster share the tile out, four features of a row
    # each.
    comptime quads = Int32(shape.features() // 4)
    for i in range(
        slice * Int32(_THREADS) + Int32(thread_idx.x),
        Int32(problem.rows) * quads,
        Int32(shape.slices * _THREADS),
    ):
        var row = i // quads
        var quad = i % quads
        var feature = first_feature + quad * 4
        if feature >= Int32(features):
            continue
        var mine = _quad_sums[shape](shared, 0, row, quad)
        var total = SIMD[.float32, 4](0)
        comptime for part in range(shape.slices):
            total += load_from_block(mine, Int32(part))
        problem.store[alignment=4](
            Int(row), Int(feature), total.cast[.bfloat16]()
        )


def few_rows_linear_sm90[
    features: Int, depth: Int, has_bias: Bool, //
](problem: LinearProblem[features, depth, has_bias], ctx: DeviceContext) raises:
    """Enqueues a layer, in one launch.

    Parameters:
        features: N.
        depth: K.
        has_bias: Whether there is a bias to add.

    Args:
        problem: The operands, for which `takes_few_rows` holds.
        ctx: The device.

    Raises:
        Error: If the launch fails.
    """
    comptime if _takes_sizes(features, depth):
        comptime for octets in [1, 2, 4, 8]:
            if octets == _row_octets(problem.rows):
                _launch[FewRowsShape.of(features, octets)](problem, ctx)


@inline(.always)
def _launch[
    features: Int, depth: Int, has_bias: Bool, //, shape: FewRowsShape
](problem: LinearProblem[features, depth, has_bias], ctx: DeviceContext) raises:
    comptime shared_bytes = shape.shared_bytes(depth)
    ctx.enqueue_function[_few_rows_kernel[features, depth, has_bias, shape]](
        problem.output,
        problem.x,
        problem.weight,
        problem.bias,
        Int32(problem.rows),
        grid_dim=ceildiv(features, shape.features()) * shape.slices,
        block_dim=_THREADS,
        cluster_dim=Dim(shape.slices, 1, 1),
        shared_mem_bytes=shared_bytes,
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(shared_bytes)
        ),
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
