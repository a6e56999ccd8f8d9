# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What the router chose for few tokens, a slot a lane of one warp.

Every thread block of the kernels for few tokens finds it by itself, which is
shorter than a launch that finds it for all.
"""

from max.gpu import lane_id

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
def slot_choice[
    top_k: Int, *, from_logits: Bool
](layer: LayerProblem) -> SlotChoice:
    """Finds the expert of the slot that has this lane's number, with a whole warp.

    Parameters:
        top_k: Choices a token.
        from_logits: Whether to select from the router's logits; else the choices
            and weights are read.

    Args:
        layer: The operands and their sizes, with no more slots than a warp has
            lanes.

    Returns:
        The expert, none where there is no such slot.
    """
    var lane = Int32(lane_id())
    var chosen = SlotChoice(-1, 0)
    comptime if from_logits:
        var tokens = Int32(UInt32(layer.rows) // UInt32(top_k))
        var scores = RouterScores(
            layer.tables.router_weights, layer.logits, tokens, layer.experts
        )
        for token in range(tokens):
            var keys = select_by_warp[top_k](scores, token)
            var weights = key_weights(keys)
            comptime for choice in range(top_k):
                if lane == token * Int32(top_k) + Int32(choice):
                    chosen = SlotChoice(
                        key_expert(keys[choice]), weights[choice]
                    )
    else:
        if lane < layer.rows:
            chosen = SlotChoice(
                layer.tables.choices[unsafe_offset=Int(lane)],
                layer.tables.router_weights[unsafe_offset=Int(lane)],
            )
    return chosen
