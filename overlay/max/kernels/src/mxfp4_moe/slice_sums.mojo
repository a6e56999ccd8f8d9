# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Adds what the thread blocks of the layer kernel have of each token.

A routed row's result is spread over the segments of its row tile, each a part of the
sum over K. They lie in the order of the blocks, and are added in an order that
the routing alone decides.
"""

from std.math import ceildiv
from std.memory import unsafe_stack_allocation

from max.gpu import (
    MAX_THREADS_PER_BLOCK_METADATA,
    WARP_SIZE,
    block_idx,
    lane_id,
    thread_idx,
    warp_id,
)
from max.gpu.host import DeviceContext
from max.gpu.primitives.grid_controls import (
    PDLLevel,
    launch_dependent_grids,
    pdl_launch_attributes,
    wait_on_dependent_grids,
)
from max.gpu.sync import barrier, syncwarp
from std.utils import StaticTuple

from .kernel_argument import TensorPointer
from .layer_problem import LayerProblem
from .slice_layout import MAX_BLOCKS, SLICE_FEATURES
from .slice_schedule import MAX_ROWS, TILE_ROWS, SliceSchedule
from .slot_choice import CHOICE_SOURCE, select_slots, slot_choice
from .subnormals import round_to_bf16
from .work_share import share_of

comptime _WARPS = 32
# As many as a choice of one token has parts on 132 multiprocessors.

comptime _THREADS = _WARPS * WARP_SIZE
comptime _VECTOR = 4
# Features of a lane: one 16-byte load of a part.

comptime _FEATURES = WARP_SIZE * _VECTOR
# Features of a thread block.

comptime PART_ROWS = (MAX_BLOCKS + MAX_ROWS) * TILE_ROWS
"""Rows of parts that any routing of `MAX_ROWS` rows has room in."""


@fieldwise_init
struct SlotParts(TrivialRegisterPassable):
    """Where the parts of a slot's result lie."""

    var first: Int32
    """The row of the first part; the next ones are `TILE_ROWS` further each."""
    var count: Int32
    """Parts; none where the slot has no expert."""
    var expert: Int32
    """The slot's expert."""
    var weight: Float32
    """The router's weight of the slot."""


@inline(.always)
def segment_parts(
    sums: TensorPointer[Float32],
    tile: Int32,
    block: Int32,
    features: Int32,
) -> TensorPointer[Float32]:
    """Finds the place of a segment's results.

    From one segment to the next, the block or the row tile is another, or both,
    so the sum of the two tells segments apart.

    Args:
        sums: Float32 `[PART_ROWS, features]`.
        tile: The segment's row tile.
        block: The thread block that has it.
        features: Features of a row.

    Returns:
        Where the results of the row tile's first row start.
    """
    return sums.unsafe_offset(Int((block + tile) * TILE_ROWS * features))


@inline(.always)
def _slot_parts(
    schedule: SliceSchedule, slot: Int32, weight: Float32, blocks: Int32
) -> SlotParts:
    var place = schedule.places[unsafe_offset=Int(slot)]
    if place < 0:
        return SlotParts(0, 0, 0, 0)
    var slices = schedule.share[].all
    var tile = Int32(UInt32(place) // TILE_ROWS)
    var first = tile * schedule.tile_slices
    var first_block = share_of(slices, blocks, first)
    var last_block = share_of(slices, blocks, first + schedule.tile_slices - 1)
    return SlotParts(
        first_block * TILE_ROWS + place,
        last_block - first_block + 1,
        schedule.tiles[unsafe_offset=Int(tile)].expert,
        weight,
    )


@__llvm_metadata(
    MAX_THREADS_PER_BLOCK_METADATA=StaticTuple[Int32, 1](Int32(_THREADS)),
    # Else the assembler saves registers for more blocks a multiprocessor.
    `nvvm.minctasm`=Int(1).__mlir_index__(),
)
@__name(t"mxfp4_moe_sum_parts_top{top_k}_{CHOICE_SOURCE[from_logits]}")
def _sum_parts_kernel[
    top_k: Int, from_logits: Bool
](
    output: TensorPointer[BFloat16],
    sums: TensorPointer[Float32],
    layer: LayerProblem,
    blocks: Int32,
):
    var warp_sums = unsafe_stack_allocation[
        _WARPS * _FEATURES, Float32, address_space=.SHARED, alignment=16
    ]()
    var slot_parts = unsafe_stack_allocation[
        MAX_ROWS, SlotParts, address_space=.SHARED, alignment=16
    ]()
    var place = unsafe_stack_allocation[
        SliceSchedule.shared_bytes(),
        UInt8,
        address_space=.SHARED,
        alignment=16,
    ]()
    var schedule = SliceSchedule(place, layer.width // SLICE_FEATURES)
    var token = Int32(block_idx.y)
    var lane = Int32(lane_id())
    var warp = Int32(warp_id())
    var features = layer.features
    # Lanes past the last feature do its work once more, so that none diverge.
    var feature = min(
        Int32(block_idx.x) * Int32(_FEATURES) + lane * Int32(_VECTOR),
        features - Int32(_VECTOR),
    )

    # What comes next may prepare itself meanwhile.
    launch_dependent_grids()
    # The layer kernel waited for logits and choices before it let this kernel
    # start.
    comptime if from_logits:
        select_slots[top_k, _WARPS, weighted=True](layer, schedule.choices)
        barrier()
    if warp == 0:
        var chosen = slot_choice[from_logits=from_logits](
            layer, schedule.choices
        )
        schedule.list_tiles[top_k](
            chosen.expert,
            Int32(UInt32(layer.rows) // UInt32(top_k)),
            0,
            blocks,
        )
        syncwarp()
        if lane < layer.rows:
            slot_parts[unsafe_offset=Int(lane)] = _slot_parts(
                schedule, lane, chosen.weight, blocks
            )
    barrier()
    comptime assert top_k <= MAX_ROWS
    var weights = StaticTuple[Float32, top_k](fill=0)
    var biases = SIMD[.float32, _VECTOR](0)
    comptime for choice in range(top_k):
        var slot = Int(token) * top_k + choice
        var parts = slot_parts[unsafe_offset=slot]
        weights[choice] = parts.weight
        if warp == Int32(choice) and parts.count > 0:
            biases = (
                weights[choice]
                * layer.down.bias.unsafe_load[
                    width=_VECTOR, alignment=2 * _VECTOR
                ](Int(parts.expert) * Int(features) + Int(feature)).cast[
                    .float32
                ]()
            )
    wait_on_dependent_grids()

    # A part of each choice without a branch between them: one wait for most.
    var first_parts = StaticTuple[SIMD[.float32, _VECTOR], top_k](fill=0)
    comptime for choice in range(top_k):
        first_parts[choice] = _part(
            sums,
            slot_parts[unsafe_offset=Int(token) * top_k + choice],
            warp,
            features,
            feature,
        )
    syncwarp()
    var total = biases
    comptime for choice in range(top_k):
        total += weights[choice] * first_parts[choice]
    comptime for choice in range(top_k):
        var parts = slot_parts[unsafe_offset=Int(token) * top_k + choice]
        for part in range(warp + Int32(_WARPS), parts.count, Int32(_WARPS)):
            total += weights[choice] * _part(
                sums, parts, part, features, feature
            )
    warp_sums.unsafe_store[alignment=16](
        Int(warp * Int32(_FEATURES) + lane * Int32(_VECTOR)), total
    )
    barrier()
    var thread = Int32(thread_idx.x)
    feature = Int32(block_idx.x) * Int32(_FEATURES) + thread
    if thread < Int32(_FEATURES) and feature < features:
        var sum = Float32(0)
        comptime for other in range(_WARPS):
            sum += warp_sums[unsafe_offset=Int(thread) + other * _FEATURES]
        output[unsafe_offset=Int(token * features + feature)] = round_to_bf16(
            sum
        )


@inline(.always)
def _part(
    sums: TensorPointer[Float32],
    slot: SlotParts,
    part: Int32,
    features: Int32,
    feature: Int32,
) -> SIMD[.float32, _VECTOR]:
    # Past the last part, reads the first for nothing: there is room for one.
    var there = part < slot.count
    var row = slot.first + part * Int32(TILE_ROWS) if there else 0
    var sum = sums.unsafe_load[width=_VECTOR, alignment=16](
        Int(row * features + feature)
    )
    return sum if there else SIMD[.float32, _VECTOR](0)


def sum_parts[
    top_k: Int, *, from_logits: Bool
](
    output: TensorPointer[BFloat16],
    sums: TensorPointer[Float32],
    layer: LayerProblem,
    blocks: Int,
    ctx: DeviceContext,
) raises:
    """Enqueues the sum of each token's parts, biases and router weights applied.

    Parameters:
        top_k: Choices a token.
        from_logits: Whether logits stand for the tables.

    Args:
        output: BF16 `[tokens, features]`.
        sums: Float32 `[PART_ROWS, features]`: what the layer kernel stored.
        layer: The operands and their sizes.
        blocks: Thread blocks of the layer kernel.
        ctx: The device.

    Raises:
        Error: If the launch fails.
    """
    ctx.enqueue_function[_sum_parts_kernel[top_k, from_logits]](
        output,
        sums,
        layer,
        Int32(blocks),
        grid_dim=(
            ceildiv(Int(layer.features), _FEATURES),
            Int(layer.rows) // top_k,
        ),
        block_dim=_THREADS,
        attributes=pdl_launch_attributes(PDLLevel.OVERLAP_AT_END),
    )
