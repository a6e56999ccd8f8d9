# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Names every kernel that the graph ops can launch, so that a build emits them all."""

from max.gpu.host import DeviceContext

from mxfp4_moe.combine import combine_gpu
from mxfp4_moe.dispatch import grouped_matmul
from mxfp4_moe.epilogue import BiasSwiGLU, BiasWeightScatter, StoreBF16
from mxfp4_moe.problem import GatherRow, SameRow
from mxfp4_moe.routing import RoutingTables, route_gpu

from nowhere import nowhere, problem_nowhere


def main() raises:
    var problem = problem_nowhere()
    var tables = RoutingTables(
        nowhere[UInt32](), nowhere[UInt32](), nowhere[Int32](), nowhere[Int32]()
    )
    with DeviceContext() as ctx:
        grouped_matmul["gpu"](
            problem, SameRow(), StoreBF16(nowhere[BFloat16](), 0), ctx
        )
        grouped_matmul["gpu"](
            problem,
            GatherRow[4](nowhere[UInt32]()),
            BiasSwiGLU[1.702, 7.0](nowhere[BFloat16](), nowhere[BFloat16](), 0),
            ctx,
        )
        grouped_matmul["gpu"](
            problem,
            SameRow(),
            BiasWeightScatter(
                nowhere[Float32](),
                nowhere[BFloat16](),
                nowhere[Float32](),
                nowhere[UInt32](),
                0,
            ),
            ctx,
        )
        route_gpu(tables, 0, 0, ctx)
        combine_gpu[4](nowhere[BFloat16](), nowhere[Float32](), 0, 0, ctx)
