# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""vLLM's MXFP4 MoE kernels: fetched from its published wheel, and timed without vLLM."""
