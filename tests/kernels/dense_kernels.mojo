# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Names the kernels of few rows for gpt-oss's dense layers, so that a build emits them all."""

from max.gpu.host import DeviceContext

from dense_linear.few_rows_sm90 import few_rows_linear_sm90
from dense_linear.problem import LinearProblem

from nowhere import nowhere


def layer[features: Int, depth: Int](ctx: DeviceContext) raises:
    few_rows_linear_sm90(
        LinearProblem[features, depth, True](
            nowhere[BFloat16](),
            nowhere[BFloat16](),
            nowhere[BFloat16](),
            nowhere[BFloat16](),
            rows=2,
        ),
        ctx,
    )


def main() raises:
    with DeviceContext() as ctx:
        layer[5120, 2880](ctx)
        layer[2880, 4096](ctx)
        layer[128, 2880](ctx)
