# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Makes gpt-oss checkpoints of random weights in Hugging Face layout."""

from __future__ import annotations

from checkpoint.maker import make_checkpoint
from checkpoint.shapes import PRESETS, CheckpointError, Shapes

__all__ = ["PRESETS", "CheckpointError", "Shapes", "make_checkpoint"]
