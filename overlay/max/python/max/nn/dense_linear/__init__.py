# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""BF16 linear layers that write nothing but their output's rows."""

from .ops import dense_linear, grouped_linear, kernel_package_path

__all__ = ["dense_linear", "grouped_linear", "kernel_package_path"]
