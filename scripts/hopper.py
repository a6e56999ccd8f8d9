# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Looking for a Hopper GPU through NVIDIA's driver, without starting MAX."""

from __future__ import annotations

import ctypes

_COMPUTE_CAPABILITY_MAJOR = 75
_COMPUTE_CAPABILITY_MINOR = 76


def why_no_hopper() -> str | None:
    """Returns None where the first GPU is a Hopper one (sm_90a), else the reason why not."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    if driver.cuInit(0) != 0:
        return "the NVIDIA driver finds no GPU that it can use"
    device = ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return "the NVIDIA driver finds no GPU"
    major, minor = ctypes.c_int(), ctypes.c_int()
    for value, attribute in (
        (major, _COMPUTE_CAPABILITY_MAJOR),
        (minor, _COMPUTE_CAPABILITY_MINOR),
    ):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
            return "the NVIDIA driver does not tell the GPU's compute capability"
    if (major.value, minor.value) != (9, 0):
        return f"the first GPU has compute capability {major.value}.{minor.value}, and Hopper 9.0"
    return None
