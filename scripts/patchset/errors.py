# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The error that every part of the patch set raises for what a user can put right."""


class PatchsetError(Exception):
    """One sentence that names the file or version in the way, and the way out."""
