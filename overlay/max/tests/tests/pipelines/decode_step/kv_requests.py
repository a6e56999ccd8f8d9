# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Requests that decode, and caches like gpt-oss's for them, in host memory."""

from __future__ import annotations

import numpy as np
from max.dtype import DType
from max.graph import DeviceRef
from max.nn.kv_cache import MHAKVCacheParams, MultiKVCacheParams
from max.pipelines.context import TextContext, TokenBuffer
from max.pipelines.kv_cache.paged_kv_cache.jenga_cache_manager import JengaKVCacheManager

PAGE = 128
MAX_LENGTH = 8 * PAGE


def cache_params(window: int | None, num_draft_tokens: int = 0) -> MHAKVCacheParams:
    return MHAKVCacheParams(
        dtype=DType.float32,
        n_kv_heads=1,
        head_dim=16,
        num_layers=1,
        page_size=PAGE,
        devices=[DeviceRef.CPU()],
        window_size=window,
        num_draft_tokens=num_draft_tokens,
    )


def cache_manager() -> JengaKVCacheManager:
    """A sliding-window cache and one over all tokens, as gpt-oss has them."""
    params = MultiKVCacheParams.from_params(
        {"sliding_attention": cache_params(PAGE), "full_attention": cache_params(None)}
    )
    return JengaKVCacheManager.create(
        params=params, available_bytes=64 << 20, max_batch_size=8, max_seq_len=MAX_LENGTH
    )


def request(prompt: int) -> TextContext:
    """A request that waits for the token of the step in flight."""
    context = TextContext(
        max_length=MAX_LENGTH, tokens=TokenBuffer(np.arange(prompt, dtype=np.int64))
    )
    context.update_with_future_token()
    return context


def decode(context: TextContext) -> None:
    """The step in flight is done, and the next one is sent."""
    context.realize_future_token(7)
    context.update_with_future_token()
