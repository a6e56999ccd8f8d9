# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A whole expert layer on Hopper for few tokens: both projections in one launch.

A thread block takes slices of the selected experts: 32 features between the
projections, the gate and up rows that make them, and what `down` multiplies them
with. So its second product depends on nothing that another block computes, weights
of both stream without a pause, and only sums are left to a second launch.
"""

from std.utils import StaticTuple

from layout.tma_async import SharedMemBarrier
from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    block_idx,
    grid_dim,
    lane_id,
    thread_idx,
    warp_id,
)
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.memory import external_memory, fence_mbarrier_init
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier, syncwarp

from .bulk_copy import SharedPointer, bulk_copy
from .kernel_argument import TensorPointer
from .layer_problem import LayerProblem
from .slice_layout import MAX_BLOCKS, SHAPE, SliceLayout
from .slice_products import SegmentProducts
from .slice_schedule import SliceSchedule
from .slice_stream import SliceStream
from .slice_sums import segment_parts, sum_parts
from .slot_choice import CHOICE_SOURCE, slot_choice

comptime _UNIT_BYTES = 16


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](
        Int32(SHAPE.threads())
    ),
    `nvvm.maxnreg`=Int(SHAPE.registers).__mlir_index__(),
)
@__name(t"mxfp4_moe_slices_top{top_k}_{CHOICE_SOURCE[from_logits]}")
def _slices_kernel[
    top_k: Int, alpha: Float32, limit: Float32, from_logits: Bool
](layer: LayerProblem, layout: SliceLayout, sums: TensorPointer[Float32]):
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=128]()
    var schedule = SliceSchedule(
        shared.unsafe_offset(layout.schedule()),
        layout.width_blocks,
    )
    var token_barrier = shared.unsafe_offset(
        layout.token_barrier()
    ).unsafe_bitcast[SharedMemBarrier]()
    layout.init_slot_barriers(shared)
    var thread = Int(thread_idx.x)
    if thread * _UNIT_BYTES < SHAPE.no_row_bytes():
        shared.unsafe_offset(layout.no_row()).unsafe_store[
            alignment=_UNIT_BYTES
        ](thread * _UNIT_BYTES, SIMD[.uint8, _UNIT_BYTES](0))
    var warp = Int(warp_id())
    if warp == 1 and lane_id() == 0:
        token_barrier[].init(1)
        fence_mbarrier_init()
    var block = Int32(block_idx.x)
    var blocks = Int32(grid_dim.x)
    wait_on_dependent_grids()
    if warp == 0:
        var chosen = slot_choice[top_k, from_logits=from_logits](layer)
        schedule.list_tiles[top_k](chosen.expert, block, blocks)
    elif warp == 1:
        # In front of all weights.
        _copy_tokens(layer, layout, shared, token_barrier)
    barrier()

    var share = schedule.share[]
    if share.first == share.end:
        # Its copies must not outlive the block.
        token_barrier[].wait(0)
        return
    var weights = SliceStream(layer, layout, shared, schedule, share)
    # The next launch's copies do not stand in front of these.
    launch_dependent_grids()
    token_barrier[].wait(0)
    var segment = schedule.first_segment(share)
    var left = share.end - share.first
    while True:
        var products = SegmentProducts(layer, layout, shared, schedule, segment)
        products.multiply_gate_up(weights)
        barrier()
        products.activate[alpha, limit]()
        barrier()
        products.multiply_down(
            weights, segment_parts(sums, segment, block, layer.features)
        )
        left -= segment.count
        if left == 0:
            break
        segment = schedule.next_segment(segment, left)


@inline(.always)
def _copy_tokens(
    layer: LayerProblem,
    layout: SliceLayout,
    shared: SharedPointer[UInt8],
    token_barrier: SharedPointer[SharedMemBarrier],
):
    var token = Int32(lane_id())
    var bytes = layer.features * 2
    # The barrier is ready.
    syncwarp()
    if token == 0:
        token_barrier[].expect_bytes(bytes * layout.tokens)
    # No byte comes before it is expected.
    syncwarp()
    if token < layout.tokens:
        bulk_copy(
            shared.unsafe_offset(
                layout.token_rows() + Int(token * Int32(layout.token_bytes()))
            ),
            layer.hidden.unsafe_offset(
                Int(token * layer.features)
            ).unsafe_bitcast[UInt8](),
            bytes,
            token_barrier,
        )


def slices_fit(
    layer: LayerProblem, tokens: Int, ctx: DeviceContext
) raises -> Bool:
    """Tells whether the layer kernel takes a problem.

    Args:
        layer: The operands and their sizes.
        tokens: Tokens.
        ctx: The device.

    Returns:
        Whether it does.

    Raises:
        Error: If the device cannot be asked.
    """
    return SliceLayout.fits(layer, tokens, _blocks(ctx))


def slices_sm90[
    top_k: Int, alpha: Float32, limit: Float32, *, from_logits: Bool
](
    output: TensorPointer[BFloat16],
    sums: TensorPointer[Float32],
    layer: LayerProblem,
    ctx: DeviceContext,
) raises:
    """Enqueues an expert layer for few tokens, in two launches.

    Parameters:
        top_k: Choices a token.
        alpha: The slope of SwiGLU's sigmoid.
        limit: The clamp of gate and up.
        from_logits: Whether to select experts by the router's logits; else
            `choices` and `router_weights` of the tables are read.

    Args:
        output: BF16 `[tokens, features]`.
        sums: Float32 `[PART_ROWS, features]`: room for what thread blocks have
            of each row.
        layer: The operands and their sizes, in device memory; weights lie in
            panels, weights and `hidden` start at a multiple of 16 bytes, and
            `slices_fit` holds.
        ctx: The device.

    Raises:
        Error: If an operand is not aligned, or a launch fails.
    """
    if (
        Int(layer.hidden)
        | Int(layer.gate_up.blocks)
        | Int(layer.gate_up.scales)
        | Int(layer.down.blocks)
        | Int(layer.down.scales)
    ) % 16 != 0:
        raise Error(
            "mxfp4_moe: hidden, blocks and scales must start at a multiple of"
            " 16 bytes in device memory."
        )
    var blocks = _blocks(ctx)
    var layout = SliceLayout(layer, layer.rows // Int32(top_k), Int32(blocks))
    ctx.enqueue_function[_slices_kernel[top_k, alpha, limit, from_logits]](
        layer,
        layout,
        sums,
        grid_dim=blocks,
        block_dim=SHAPE.threads(),
        shared_mem_bytes=layout.shared_bytes(),
        func_attribute=FuncAttribute.MAX_DYNAMIC_SHARED_SIZE_BYTES(
            UInt32(layout.shared_bytes())
        ),
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
    sum_parts[top_k, from_logits=from_logits](output, sums, layer, blocks, ctx)


def _blocks(ctx: DeviceContext) raises -> Int:
    return min(
        MAX_BLOCKS, ctx.get_attribute(DeviceAttribute.MULTIPROCESSOR_COUNT)
    )
