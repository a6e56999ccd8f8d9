# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""BF16 linear layers that write nothing but their output's rows.

- `problem`: the operands of a layer.
- `linear`: the layer on a GPU, and the executable specification.
- `few_rows_sm90`: the layer on Hopper for 2 to 64 rows.
- `few_rows_shape`, `few_rows_ring`, `few_rows_sums` and `few_rows_exchange`: how its
  blocks share it out, bring operands, multiply, and add their sums up.
- `cluster_memory`: the shared memory of neighbouring thread blocks.
- `grouped`: a layer of each expert, likewise.
- `nested_offset`: what the GPU's grouped matmul needs to compile.
- `ops`: the graph operations.
"""

from .ops import *
