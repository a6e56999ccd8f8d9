# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Names every kernel that the graph ops can launch, so that a build emits them all."""

from max.gpu.host import DeviceContext

from mxfp4_moe.combine import combine_gpu
from mxfp4_moe.dispatch import grouped_matmul
from mxfp4_moe.epilogue import BiasSwiGLU, BiasWeightScatter, StoreBF16
from mxfp4_moe.layer_problem import ExpertStack, LayerProblem, LayerTables
from mxfp4_moe.panels import PanelStack, to_panels_gpu
from mxfp4_moe.problem import GatherRow, MatmulProblem, SameRow
from mxfp4_moe.routing import RoutingTables, route_gpu
from mxfp4_moe.select import RouterScores, select_gpu
from mxfp4_moe.slices_sm90 import slices_sm90

from nowhere import nowhere, problem_nowhere


def matmuls[in_panels: Bool](problem: MatmulProblem, ctx: DeviceContext) raises:
    grouped_matmul["gpu", in_panels=in_panels](
        problem, SameRow(), StoreBF16(nowhere[BFloat16](), 0), ctx
    )
    grouped_matmul["gpu", in_panels=in_panels](
        problem,
        GatherRow[4](nowhere[UInt32]()),
        BiasSwiGLU[1.702, 7.0](nowhere[BFloat16](), nowhere[BFloat16](), 0),
        ctx,
    )
    grouped_matmul["gpu", in_panels=in_panels](
        problem,
        SameRow(),
        BiasWeightScatter(
            nowhere[BFloat16](),
            nowhere[BFloat16](),
            nowhere[Float32](),
            nowhere[UInt32](),
            0,
        ),
        ctx,
    )


def layers[from_logits: Bool](ctx: DeviceContext) raises:
    var stack = ExpertStack(
        nowhere[UInt8](), nowhere[UInt8](), nowhere[BFloat16]()
    )
    var layer = LayerProblem(
        nowhere[BFloat16](),
        nowhere[BFloat16](),
        LayerTables(
            nowhere[UInt32](),
            nowhere[UInt32](),
            nowhere[Int32](),
            nowhere[Int32](),
            nowhere[Float32](),
        ),
        stack,
        stack,
        rows=0,
        experts=0,
        groups=0,
        features=0,
        width=0,
    )
    slices_sm90[4, 1.702, 7.0, from_logits=from_logits](
        nowhere[BFloat16](), nowhere[Float32](), layer, ctx
    )


def main() raises:
    var problem = problem_nowhere()
    var tables = RoutingTables(
        nowhere[UInt32](), nowhere[UInt32](), nowhere[Int32](), nowhere[Int32]()
    )
    var scores = RouterScores(nowhere[Float32](), nowhere[BFloat16](), 0, 0)
    var stack = PanelStack(
        nowhere[UInt8](),
        nowhere[UInt8](),
        nowhere[UInt8](),
        nowhere[UInt8](),
        rows=0,
        depth=0,
    )
    with DeviceContext() as ctx:
        to_panels_gpu(stack, ctx)
        matmuls[False](problem, ctx)
        matmuls[True](problem, ctx)
        route_gpu(tables, 0, 0, ctx)
        select_gpu[4](scores, tables, ctx)
        layers[True](ctx)
        layers[False](ctx)
        combine_gpu[4](nowhere[BFloat16](), nowhere[BFloat16](), 0, 0, ctx)
