# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A BF16 linear layer on Hopper for 2 to 64 rows: weights at memory speed.

Such a layer takes as long as its weights take to arrive, if all of the GPU asks
for them. Tiles of features alone are too few for that, so K is cut as well: the
thread blocks of a cluster share a tile of features and each takes a slice of K.
Their sums meet in shared memory, and are always added in the same order.

One lane has the copy engine bring weights and activations, and a warpgroup
multiplies them with `wgmma`: 64 features are A, up to 64 rows are B.
"""

from std.math import ceildiv
from std.memory import Pointer
from std.utils import StaticTuple
from std.utils.index import Index

from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    block_idx,
    lane_id,
    thread_idx,
)
from max.gpu.compute.mma import WGMMADescriptor, wgmma_wait_group_sync
from max.gpu.host import DeviceBuffer, DeviceContext, Dim, FuncAttribute
from max.gpu.host.nvidia.tma import (
    TensorMapSwizzle,
    TMADescriptor,
    create_tma_descriptor,
    prefetch_tma_descriptor,
)
from max.gpu.memory import external_memory
from max.gpu.primitives.cluster import cluster_wait
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier

from .cluster_memory import arrive_relaxed
from .few_rows_exchange import FewRowsExchange
from .few_rows_ring import FewRowsRing
from .few_rows_shape import (
    CONSUMER_THREADS,
    MAX_ROWS,
    STEP_BYTES,
    STEP_DEPTH,
    THREADS,
    TILE_FEATURES,
    WEIGHT_BYTES,
    FewRowsShape,
)
from .few_rows_sums import declare_sums, multiply_step
from .problem import LinearProblem, TensorPointer

comptime MIN_ROWS = 2
"""Fewer rows are a matrix-vector product, for which upstream has a kernel."""


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
        Whether it does: from 2 to 64 rows, where tiles would not fill the GPU
        more than once and operands are aligned.
    """
    comptime if not FewRowsShape.takes(features, depth):
        return False
    return (
        MIN_ROWS <= problem.rows <= MAX_ROWS
        and (Int(problem.x) | Int(problem.weight) | Int(problem.output)) % 16
        == 0
    )


@inline(.always)
def _share(steps: Int, parts: Int, part: Int32) -> Int32:
    # The steps before a part. Parts differ by one step at most.
    var each = Int32(steps // parts)
    return each * part + min(part, Int32(steps % parts))


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(THREADS)),
    `nvvm.cluster_dim`=StaticTuple[Int32, 3](Int32(shape.slices), 1, 1),
    `nvvm.minctasm`=Int(2).__mlir_index__(),
)
@__llvm_arg_metadata(weight_map, `nvvm.grid_constant`)
@__llvm_arg_metadata(x_map, `nvvm.grid_constant`)
@__name(t"dense_linear_{features}x{depth}_{shape.row_octets}_octets_{has_bias}")
def _few_rows_kernel[
    features: Int, depth: Int, has_bias: Bool, shape: FewRowsShape
](
    weight_map: TMADescriptor,
    x_map: TMADescriptor,
    output: TensorPointer[BFloat16],
    x: TensorPointer[BFloat16],
    weight: TensorPointer[BFloat16],
    bias: TensorPointer[BFloat16],
    rows: Int32,
):
    declare_sums[shape.rows()]()
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=1024]()
    var tile = Int32(UInt32(block_idx.x) // UInt32(shape.slices))
    var slice = Int32(block_idx.x) - tile * Int32(shape.slices)
    var first_feature = tile * Int32(TILE_FEATURES)
    comptime steps = ceildiv(depth, STEP_DEPTH)
    var first = _share(steps, shape.slices, slice)
    var ring = FewRowsRing[shape, depth](
        shared, _share(steps, shape.slices, slice + 1) - first
    )
    if thread_idx.x == CONSUMER_THREADS:
        prefetch_tma_descriptor(
            Pointer(to=weight_map).unsafe_bitcast[NoneType]()
        )
        prefetch_tma_descriptor(Pointer(to=x_map).unsafe_bitcast[NoneType]())
        ring.prepare()
        ring.copy_first_weights(weight_map, first_feature, first)
        comptime if shape.slices > 1:
            ring.sums_there()[].expect_bytes(shape.received_bytes(rows, slice))
    barrier()
    var exchange = FewRowsExchange[shape](
        LinearProblem[features, depth, has_bias](
            output, x, weight, bias, rows=Int(rows)
        ),
        slice,
        first_feature,
    )
    if thread_idx.x >= CONSUMER_THREADS:
        if thread_idx.x == CONSUMER_THREADS:
            wait_on_dependent_grids()
            ring.copy_rest(weight_map, x_map, first_feature, first)
    else:
        ring.wait_full()
        exchange.load_biases()
        _multiply(ring)
    comptime if shape.slices > 1:
        # Sums take the place of the stages, which all blocks are done with now.
        arrive_relaxed()
        cluster_wait()
    if thread_idx.x < CONSUMER_THREADS:
        comptime if shape.slices > 1:
            exchange.send(shared, ring.sums_there())
        exchange.store(shared, ring.sums_there())


@inline(.always)
def _multiply[
    shape: FewRowsShape, depth: Int, //
](mut ring: FewRowsRing[shape, depth]):
    var weights = (
        WGMMADescriptor[.bfloat16]
        .create[8 * STEP_BYTES // 16, 1, TensorMapSwizzle.SWIZZLE_128B](
            ring.shared.unsafe_bitcast[BFloat16]()
        )
        .desc
    )
    var rows = weights + Int64(shape.first_rows(depth) // 16)
    for step in range(ring.steps):
        ring.wait_full()
        multiply_step[shape.rows()](
            weights + Int64(ring.weights.stage * Int32(WEIGHT_BYTES // 16)),
            rows + Int64(ring.rows.stage * Int32(shape.row_bytes() // 16)),
            step > 0,
        )
        # The step before is done, and its stages free.
        wgmma_wait_group_sync[1]()
        if step > 0 and lane_id() == 0:
            ring.release_last()
        ring.advance()
    wgmma_wait_group_sync()


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
    comptime if FewRowsShape.takes(features, depth):
        comptime for octets in [1, 2, 4, 8]:
            if octets == _row_octets(problem.rows):
                _launch[FewRowsShape.of(features, depth, octets)](problem, ctx)


@inline(.always)
def _map[
    depth: Int
](
    matrix: TensorPointer[BFloat16],
    rows: Int,
    box_rows: Int,
    ctx: DeviceContext,
) raises -> TMADescriptor:
    # Boxes of one step. What lies past the matrix arrives as zeros.
    return create_tma_descriptor[
        .bfloat16,
        2,
        TensorMapSwizzle.SWIZZLE_128B,
    ](
        DeviceBuffer[.bfloat16](ctx, matrix, rows * depth, owning=False),
        Index(rows, depth),
        Index(depth, 1),
        Index(box_rows, STEP_DEPTH),
    )


@inline(.always)
def _launch[
    features: Int, depth: Int, has_bias: Bool, //, shape: FewRowsShape
](problem: LinearProblem[features, depth, has_bias], ctx: DeviceContext) raises:
    comptime shared_bytes = shape.shared_bytes(depth)
    ctx.enqueue_function[_few_rows_kernel[features, depth, has_bias, shape]](
        _map[depth](problem.weight, features, TILE_FEATURES, ctx),
        _map[depth](problem.x, problem.rows, shape.rows(), ctx),
        problem.output,
        problem.x,
        problem.weight,
        problem.bias,
        Int32(problem.rows),
        grid_dim=shape.blocks(features),
        block_dim=THREADS,
        cluster_dim=Dim(shape.slices, 1, 1),
        shared_mem_bytes=shared_bytes,
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(shared_bytes)
        ),
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
