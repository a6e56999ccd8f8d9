# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Mixture-of-experts layers that compute from packed MXFP4 weights."""

from .ops import (
    ExpertStack,
    fits_panels,
    kernel_package_path,
    mxfp4_moe_combine,
    mxfp4_moe_down,
    mxfp4_moe_experts,
    mxfp4_moe_gate_up_swiglu,
    mxfp4_moe_matmul,
    mxfp4_moe_route,
    mxfp4_moe_scale_bytes,
    mxfp4_moe_select,
    mxfp4_moe_to_panels,
)

__all__ = [
    "ExpertStack",
    "fits_panels",
    "kernel_package_path",
    "mxfp4_moe_combine",
    "mxfp4_moe_down",
    "mxfp4_moe_experts",
    "mxfp4_moe_gate_up_swiglu",
    "mxfp4_moe_matmul",
    "mxfp4_moe_route",
    "mxfp4_moe_scale_bytes",
    "mxfp4_moe_select",
    "mxfp4_moe_to_panels",
]
