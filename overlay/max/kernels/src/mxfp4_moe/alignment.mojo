# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where tensors must begin that Hopper's copies and widest loads read."""

comptime _BYTES = 16


def require_alignment(tensors: StaticString, addresses: Int) raises:
    """Checks where tensors begin, before anything is launched.

    Args:
        tensors: What they are called, for the message.
        addresses: Their addresses, each or-ed with the next.

    Raises:
        Error: If one of them is not at a multiple of 16 bytes.
    """
    if addresses % _BYTES != 0:
        raise Error(
            t"mxfp4_moe: {tensors} must start at a multiple of {_BYTES} bytes"
            t" in device memory."
        )
