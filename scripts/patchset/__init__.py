# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The patch set: its pin, overlay and patches, applied to a Modular checkout or to a max wheel."""
