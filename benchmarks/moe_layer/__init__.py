# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures one gpt-oss MoE layer: ours, its peers and the hardware's limit."""
