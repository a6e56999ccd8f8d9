# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Mixture-of-experts layers over MXFP4 weights that stay packed in memory.

- `mxfp4`: the number format.
- `panels`, with `panel_word`: the order in which the Hopper kernels read weights.
- `problem`: the operands of a grouped matmul and its row maps.
- `matmul_cpu`: the executable specification.
- `stream_sm90`, with `stream_layout`, `stream_schedule`, `weight_stream`,
  `weight_chunk`, `next_weights`, `activation_rows`, `panel_products`, `part_sums`
  and `bulk_copy`: the Hopper kernel for few rows an expert.
- `prefill_sm90`, with `prefill_layout`, `prefill_schedule`, `prefill_ring`,
  `prefill_producer`, `prefill_operands`, `prefill_consumer`, `prefill_sums`,
  `gather_rows` and `tensor_copy`:
  the Hopper kernel for many rows.
- `matmul_sm90`, with `activation_stage` and `tile_schedule`: the Hopper kernel
  for shapes that the others do not take.
- `layer`, with `layer_problem`: a whole layer, by those kernels or the next ones.
- `slices_sm90`, with `slot_choice`, `slice_layout`, `slice_schedule`,
  `slice_tokens`, `slice_stream`, `slice_products`, `raw_products`,
  `slice_exchange`, `slice_down` and `slice_sums`: the Hopper kernels of a whole
  layer for up to four tokens.
- `work_share`, `divisor`, `warp_lanes`, `l2_prefetch`, `alignment`: equal shares of
  work, divisions, what lanes tell each other, what is brought into L2 early, and
  where tensors must begin.
- `expand_sm90`: packed elements to tensor-core fragments, in registers.
- `epilogue`: what follows the sums: store, bias + SwiGLU, bias + weight.
- `select`, `routing`, `combine`: what comes before and after the matmuls.
- `dispatch`: which implementation and which tile sizes.
- `ops`: the graph operations.
"""

from .ops import *
