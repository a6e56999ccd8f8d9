# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""``max generate`` on a made checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from max_command import MAX, run

pytest_plugins = ("gpu_checkpoint",)
pytestmark = pytest.mark.gpu

TOKENS = 24


def generate(checkpoint: Path, options: list[str], prompt: str) -> str:
    arguments = ["--model-path", str(checkpoint), "--max-length", "1024", *options]
    request = ["--prompt", prompt, "--max-new-tokens", str(TOKENS), "--top-k", "1"]
    return run([*MAX, "generate", *arguments, *request])


def test_generates_text_that_depends_on_the_prompt_and_on_nothing_else(
    checkpoint: Path, graph_options: list[str]
) -> None:
    first = generate(checkpoint, graph_options, "Why is the sky blue?")
    again = generate(checkpoint, graph_options, "Why is the sky blue?")
    other = generate(checkpoint, graph_options, "Name three rivers.")
    text, same, different = (_text(output) for output in (first, again, other))
    assert len(text.split()) >= TOKENS // 2
    assert text == same
    assert text != different


def _text(output: str) -> str:
    """What was generated: everything before the report of the timings."""
    return output.partition("Prompt size:")[0]
