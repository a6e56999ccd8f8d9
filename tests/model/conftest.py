# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""GPUs that need not be there: the fixtures of the overlay's own tests."""

from virtual_gpus import hopper, two_hoppers, use_gpu

__all__ = ["hopper", "two_hoppers", "use_gpu"]
