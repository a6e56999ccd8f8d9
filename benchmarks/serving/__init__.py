# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures ``max serve`` with a gpt-oss checkpoint on one GPU."""
