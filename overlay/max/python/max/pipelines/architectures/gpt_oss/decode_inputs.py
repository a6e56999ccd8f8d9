# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What a decode step's inputs share with those of the step before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from max.driver import Buffer
from max.nn.kv_cache import KVCacheInputs
from max.pipelines.context import FUTURE_TOKEN, TextContext

from max import tree

from .model import GptOssInputs

CacheInputs = KVCacheInputs[Buffer, Buffer] | None


@dataclass
class KeptInputs(GptOssInputs):
    """Inputs whose cache inputs earlier steps had too."""

    kept: tuple[CacheInputs, list[Buffer]] = (None, [])
    """These cache inputs, and the leaves of them."""

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """The graph's inputs, in its order."""
        cache, leaves = self.kept
        if cache is not self.kv_cache_inputs:
            leaves = tree.leaves(self.kv_cache_inputs)
        assert isinstance(self.tokens, Buffer)
        assert isinstance(self.input_row_offsets, list)
        return (
            self.tokens,
            self.return_n_logits,
            *self.input_row_offsets,
            *self.signal_buffers,
            *leaves,
        )


def only_placeholders(batch: Sequence[TextContext]) -> bool:
    """Whether each request waits for the token of the step in flight, and for nothing else."""
    return all(
        context.tokens.active_length == 1 and context.tokens.active[0] == FUTURE_TOKEN
        for context in batch
    )


class SentRows:
    """The rows of a batch that decodes, on the device since it was sent.

    A placeholder's place takes the last step's token on the device, so as many placeholders
    need nothing to be sent.
    """

    def __init__(self, inputs: GptOssInputs, requests: int, return_n_logits: int) -> None:
        self.shape = (requests, return_n_logits)
        # The pipeline puts the last step's tokens in the place of these.
        self.tokens = inputs.tokens
        self.inputs = inputs
        self.kept: tuple[CacheInputs, list[Buffer]] | None = None

    def with_cache(self, cache: CacheInputs) -> GptOssInputs:
        """The inputs of a step that differs in its cache inputs alone, or not even there."""
        if self.kept is None or self.kept[0] is not cache:
            self.kept = (cache, tree.leaves(cache))
        return KeptInputs(
            tokens=self.tokens,
            input_row_offsets=self.inputs.input_row_offsets,
            return_n_logits=self.inputs.return_n_logits,
            signal_buffers=self.inputs.signal_buffers,
            kv_cache_inputs=cache,
            kept=self.kept,
        )
