# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A whole expert layer on Hopper for few tokens: both projections in one launch.

A thread block takes slices of the selected experts: 32 features between the
projections, the gate and up rows that make them, and what `down` multiplies them
with. So its second product depends on nothing that another block computes, weights
of both stream without a pause, and only sums are left to a second launch.
"""

from std.memory import Pointer, bitcast
from std.utils import StaticTuple

from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    block_idx,
    grid_dim,
    lane_id,
    warp_id,
)
from max.gpu.host import DeviceAttribute, DeviceContext, FuncAttribute
from max.gpu.host.nvidia.tma import TMADescriptor, prefetch_tma_descriptor
from max.gpu.memory import external_memory
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier

from .alignment import require_alignment
from .kernel_argument import TensorPointer
from .layer_problem import LayerProblem
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES
from .slice_down import SliceDown, down_map
from .slice_exchange import SliceExchange
from .slice_layout import MAX_BLOCKS, SHAPE, SLICE_FEATURES, SliceLayout
from .slice_products import PartProducts
from .slice_schedule import (
    TILE_ROWS,
    SliceSchedule,
    tile_rows,
)
from .slice_stream import SliceStream
from .slice_sums import segment_parts, sum_parts
from .slice_tokens import SliceTokens
from .slot_choice import (
    CHOICE_SOURCE,
    prefetch_choice,
    select_slots,
    slot_choice,
)


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](
        Int32(SHAPE.threads())
    ),
    `nvvm.maxnreg`=Int(SHAPE.registers).__mlir_index__(),
)
@__llvm_arg_metadata(down_blocks, `nvvm.grid_constant`)
@__llvm_arg_metadata(down_scales, `nvvm.grid_constant`)
@__name(t"mxfp4_moe_slices_top{top_k}_rows{rows}_{CHOICE_SOURCE[from_logits]}")
def _slices_kernel[
    top_k: Int, alpha: Float32, limit: Float32, from_logits: Bool, rows: Int
](
    down_blocks: TMADescriptor,
    down_scales: TMADescriptor,
    layer: LayerProblem,
    layout: SliceLayout,
    sums: TensorPointer[Float32],
):
    var shared = external_memory[UInt8, address_space=.SHARED, alignment=128]()
    var schedule = SliceSchedule(
        shared.unsafe_offset(SliceLayout.schedule()),
        layout.slices.value,
    )
    SliceLayout.init_barriers(shared)
    var exchange = SliceExchange[rows](layout, shared)
    exchange.init_barriers()
    SliceTokens.clear_no_row(layout, shared)
    var warp = Int(warp_id())
    SliceTokens.prefetch(layer, layout)
    if warp == 0:
        prefetch_choice[top_k, from_logits=from_logits](layer)
    elif warp == 1 and lane_id() == 0:
        prefetch_tma_descriptor(
            Pointer(to=down_blocks).unsafe_bitcast[NoneType]()
        )
        prefetch_tma_descriptor(
            Pointer(to=down_scales).unsafe_bitcast[NoneType]()
        )
    wait_on_dependent_grids()
    var tokens = SliceTokens.load(layer, layout)
    comptime if from_logits:
        select_slots[top_k, SHAPE.warps, weighted=False](
            layer, schedule.choices
        )
        barrier()
    if warp == 0:
        schedule.list_tiles[top_k](
            slot_choice[from_logits=from_logits](
                layer, schedule.choices
            ).expert,
            layout.tokens,
            Int32(block_idx.x),
            Int32(grid_dim.x),
        )
    tokens.store(layer, layout, shared)
    barrier()

    var share = schedule.share[]
    if share.first == share.end:
        return
    var weights = SliceStream(layer, layout, shared, schedule, share)
    var down = SliceDown[rows](layer, layout, shared)
    # The next launch's copies do not stand in front of these.
    launch_dependent_grids()
    # Down stays behind by some products of the next slice: by then the other warps'
    # parts of its activations are there.
    var slice = share.first
    var biases = UInt32(0)
    var products = PartProducts[rows](
        layout,
        shared,
        schedule,
        layout.place(slice).tile,
        weights.part.blocks,
    )
    while True:
        var begins = products.left == weights.part.blocks
        if slice < share.end and products.left > 0:
            products.add_next_chunk(layer, layout, schedule, weights)
        if begins:
            var place = layout.place(slice)
            if slice > share.first:
                var number = UInt32(slice - share.first) - 1
                var tile = layout.place(slice - 1).tile
                var tile_rows = schedule.rows_of[rows](tile)
                # Before the warps wait for each other.
                var large = down.wait(number)
                down.multiply(
                    exchange.activations[alpha, limit](
                        number,
                        tile_rows,
                        bitcast[.bfloat16, 2](biases).cast[.float32](),
                    ),
                    large,
                )
                if slice == share.end or place.slice == 0:
                    down.store(
                        layer.features,
                        tile_rows,
                        segment_parts(
                            sums, tile, Int32(block_idx.x), layer.features
                        ),
                    )
                if slice == share.end:
                    return
            var expert = schedule.expert_of(place.tile)
            down.start_copy(
                Pointer(to=down_blocks),
                Pointer(to=down_scales),
                layer,
                expert,
                place.slice,
            )
            biases = _slice_biases(layer, expert, place.slice)
        if products.left <= 0:
            exchange.keep(UInt32(slice - share.first), products.totals())
            slice += 1
            products = PartProducts[rows](
                layout,
                shared,
                schedule,
                layout.place(slice).tile,
                weights.part.blocks,
            )


@inline(.always)
def _slice_biases(layer: LayerProblem, expert: Int32, slice: Int32) -> UInt32:
    # Of gate and up, for the feature that has the lane's number. They are on their
    # way while the products go on that they are added to, so nothing converts them.
    var feature = slice * Int32(SLICE_FEATURES) + Int32(lane_id())
    return layer.gate_up.bias.unsafe_bitcast[UInt32]()[
        unsafe_offset=Int(expert * layer.width + feature)
    ]


def slices_fit(layer: LayerProblem, tokens: Int) -> Bool:
    """Tells whether the layer kernel takes a problem.

    Args:
        layer: The operands and their sizes.
        tokens: Tokens.

    Returns:
        Whether it does.
    """
    return SliceLayout.fits(layer, tokens)


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
    require_alignment(
        "hidden, blocks and scales",
        Int(layer.hidden)
        | Int(layer.gate_up.blocks)
        | Int(layer.gate_up.scales)
        | Int(layer.down.blocks)
        | Int(layer.down.scales),
    )
    var blocks = _blocks(ctx)
    var layout = SliceLayout(layer, layer.rows // Int32(top_k))
    comptime for rows in range(1, TILE_ROWS + 1):
        if tile_rows(layout.tokens) == Int32(rows):
            ctx.enqueue_function[
                _slices_kernel[top_k, alpha, limit, from_logits, rows]
            ](
                down_map[PANEL_BLOCK_BYTES](
                    layer.down.blocks, layer, layout, ctx
                ),
                down_map[PANEL_FEATURES](layer.down.scales, layer, layout, ctx),
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
