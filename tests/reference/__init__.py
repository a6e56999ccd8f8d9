# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""NumPy references of MXFP4 and of the gpt-oss MoE layer, and the transformers reference runs."""
