# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Mixture-of-experts layers over MXFP4 weights that stay packed in memory.

- `mxfp4`: the number format.
- `problem`: the operands of a grouped matmul and its row maps.
- `matmul_cpu`: the executable specification.
- `matmul_sm90`, with `expand_sm90`, `activation_stage` and `tile_schedule`:
  the Hopper kernel.
- `epilogue`: what follows the sums: store, bias + SwiGLU, bias + weight.
- `routing`, `combine`: what comes before and after the matmuls.
- `dispatch`: which implementation and which tile sizes.
- `ops`: the graph operations.
"""

from .ops import *
