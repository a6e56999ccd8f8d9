# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""GPUs that need not be there: MAX compiles for them all the same."""

from virtual_gpus import hopper, two_hoppers, use_gpu

__all__ = ["hopper", "two_hoppers", "use_gpu"]
