# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The error that every part of the benchmark raises for what a user can put right."""


class BenchmarkError(Exception):
    """One sentence that names the file or program in the way."""
