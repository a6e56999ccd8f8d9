# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Takes device memory away, so that what is left is what a smaller card has.

usage: python -m serving.ballast FREE_BYTES

Prints the bytes that are free, and holds the rest until its input ends.
"""

from __future__ import annotations

import ctypes
import sys

GIB = 1 << 30


def main(free_bytes: int) -> None:
    """Hold all memory of the first GPU but ``free_bytes``."""
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, address = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    _check(cuda.cuInit(0), "cuInit")
    _check(cuda.cuDeviceGet(ctypes.byref(device), 0), "cuDeviceGet")
    _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")
    _check(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    surplus = _free_bytes(cuda) - free_bytes
    if surplus > 0:
        size = ctypes.c_size_t(surplus)
        _check(cuda.cuMemAlloc_v2(ctypes.byref(address), size), "cuMemAlloc")
    print(_free_bytes(cuda), flush=True)
    sys.stdin.read()


def _free_bytes(cuda: ctypes.CDLL) -> int:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _check(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    return free.value


def _check(result: int, call: str) -> None:
    if result:
        sys.exit(f"{call} failed with CUDA error {result}.")


if __name__ == "__main__":
    main(int(sys.argv[1]))
