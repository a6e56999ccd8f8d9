# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the router chose for few tokens.

Every thread block of the kernels for few tokens finds it by itself, which is
shorter than a launch that finds it for all.
"""

from std.sys import size_of
from std.utils import StaticTuple

from max.gpu import lane_id, warp_id

from .bulk_copy import SharedPointer
from .kernel_argument import TensorPointer
from .l2_prefetch import CACHE_LINE_BYTES, prefetch_to_l2
from .layer_problem import LayerProblem
from .select import RouterScores, key_expert, key_weights, select_by_warp

comptime CHOICE_SOURCE[from_logits: Bool] = StaticString(
    "logits"
) if from_logits else StaticString("choices")
"""Where choices come from, for kernel names.

Parameters:
    from_logits: Whether from the router's logits.
"""


@fieldwise_init
struct SlotChoice(TrivialRegisterPassable):
    """A slot's expert."""

    var expert: Int32
    """The expert; -1 for none."""
    var weight: Float32
    """The router's weight."""


@inline(.always)
def select_slots[
    top_k: Int, warps: Int, *, weighted: Bool
](layer: LayerProblem, choices: SharedPointer[SlotChoice]):
    """Selects each token's experts from the router's logits, a token a warp.

    Parameters:
        top_k: Choices a token.
        warps: Warps of the block.
        weighted: Whether choices get their router weights; else zeros.

    Args:
        layer: The operands and their sizes.
        choices: Room for each slot's. Threads meet before any reads it.
    """
    var tokens = Int32(UInt32(layer.rows) // UInt32(top_k))
    for token in range(Int32(warp_id()), tokens, Int32(warps)):
        var keys = select_by_warp[top_k](
            RouterScores(
                layer.tables.router_weights, layer.logits, tokens, layer.experts
            ),
            token,
        )
        var weights = StaticTuple[Float32, top_k](fill=0)
        comptime if weighted:
            weights = key_weights(keys)
        comptime for choice in range(top_k):
            if lane_id() == choice:
                choices[unsafe_offset=Int(token) * top_k + choice] = SlotChoice(
                    key_expert(keys[choice]), weights[choice]
                )


@inline(.always)
def slot_choice[
    *, from_logits: Bool
](layer: LayerProblem, choices: SharedPointer[SlotChoice]) -> SlotChoice:
    """Reads the choice of the slot that has this lane's number.

    Parameters:
        from_logits: Whether `select_slots` found it; else the tables have it.

    Args:
        layer: The operands and their sizes, with no more slots than a warp has
            lanes.
        choices: What `select_slots` filled.

    Returns:
        The choice, no expert where there is no such slot.
    """
    var lane = Int32(lane_id())
    if lane >= layer.rows:
        return SlotChoice(-1, 0)
    comptime if from_logits:
        return choices[unsafe_offset=Int(lane)]
    else:
        return SlotChoice(
            layer.tables.choices[unsafe_offset=Int(lane)],
            layer.tables.router_weights[unsafe_offset=Int(lane)],
        )


@inline(.always)
def prefetch_choice[top_k: Int, *, from_logits: Bool](layer: LayerProblem):
    """Brings what `slot_choice` reads into L2, with a whole warp.

    What is written until `slot_choice` reads it is written there too, so this may
    come before the kernel waits for that.

    Parameters:
        top_k: Choices a token.
        from_logits: Whether to select from the router's logits.

    Args:
        layer: The operands and their sizes.
    """
    var lane = Int(lane_id())
    comptime if from_logits:
        # A cache line of logits a lane.
        comptime line = CACHE_LINE_BYTES // size_of[BFloat16]()
        var logits = Int(layer.rows) // top_k * Int(layer.experts)
        if lane * line < logits:
            prefetch_to_l2(layer.logits.unsafe_offset(lane * line))
    else:
        if lane < Int(layer.rows):
            prefetch_to_l2(layer.tables.choices.unsafe_offset(lane))
