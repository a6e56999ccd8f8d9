# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A whole gpt-oss expert layer behind the router, by whatever is fastest."""

from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from .combine import combine_cpu, combine_gpu
from .dispatch import grouped_matmul
from .epilogue import BiasSwiGLU, BiasWeightScatter
from .kernel_argument import TensorPointer
from .layer_problem import LayerProblem
from .next_weights import NextWeights
from .problem import GatherRow, SameRow
from .select import RouterScores, select_cpu, select_gpu
from .slices_sm90 import slices_fit, slices_sm90


@fieldwise_init
struct LayerBuffers(TrivialRegisterPassable):
    """What a layer keeps between its launches."""

    var gated: TensorPointer[BFloat16]
    """BF16 `[rows, width]`, in expert order."""
    var weighted: TensorPointer[BFloat16]
    """BF16 `[rows, features]`, in slot order."""
    var sums: TensorPointer[Float32]
    """Float32 `[PART_ROWS, features]`: what thread blocks have of each row, where
    tokens are few."""


def expert_layer[
    target: StaticString,
    top_k: Int,
    alpha: Float32,
    limit: Float32,
    *,
    in_panels: Bool,
    from_logits: Bool,
](
    output: TensorPointer[BFloat16],
    buffers: LayerBuffers,
    layer: LayerProblem,
    ctx: DeviceContext,
) raises:
    """Runs gate/up, SwiGLU, down, and the weighted sum over a token's experts.

    Parameters:
        target: The device kind that the graph compiler places the op on.
        top_k: Choices a token.
        alpha: The slope of SwiGLU's sigmoid.
        limit: The clamp of gate and up.
        in_panels: Whether the weights lie in panels.
        from_logits: Whether to select experts by the router's logits, and to fill
            the tables; else the tables are complete.

    Args:
        output: BF16 `[tokens, features]`.
        buffers: Room for what lies between.
        layer: The operands and their sizes.
        ctx: The device.

    Raises:
        Error: If a launch fails, or on the CPU a group names an expert that
            the stack does not hold.
    """
    var tokens = Int(layer.rows) // top_k
    if tokens == 0:
        return
    comptime if not is_cpu[target]() and in_panels:
        if slices_fit(layer, tokens):
            slices_sm90[top_k, alpha, limit, from_logits=from_logits](
                output, buffers.sums, layer, ctx
            )
            return
    comptime if from_logits:
        var scores = RouterScores(
            layer.tables.router_weights,
            layer.logits,
            Int32(tokens),
            layer.experts,
        )
        comptime if is_cpu[target]():
            select_cpu[top_k](scores, layer.tables.routing())
        else:
            select_gpu[top_k](scores, layer.tables.routing(), ctx)
    grouped_matmul[target, in_panels=in_panels](
        layer.gate_up_matmul(),
        GatherRow[top_k](layer.tables.token_expert_order),
        BiasSwiGLU[alpha, limit](
            buffers.gated, layer.gate_up.bias, 2 * layer.width
        ),
        ctx,
        # Gathered rows are done with when down's results come.
        buffers.weighted,
        NextWeights(layer.down_matmul(buffers.gated)),
    )
    # Whatever made the gated rows read the tables, so they are complete.
    grouped_matmul[target, in_panels=in_panels, tables_ready=True](
        layer.down_matmul(buffers.gated),
        SameRow(),
        BiasWeightScatter(
            buffers.weighted,
            layer.down.bias,
            layer.tables.router_weights,
            layer.tables.token_expert_order,
            layer.features,
        ),
        ctx,
    )
    comptime if is_cpu[target]():
        combine_cpu[top_k](
            output, buffers.weighted, tokens, Int(layer.features)
        )
    else:
        combine_gpu[top_k](
            output, buffers.weighted, tokens, Int(layer.features), ctx
        )
