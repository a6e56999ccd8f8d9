# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""GPUs that need not be there: MAX's virtual device, which it compiles for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gpt_oss_configs import UseGpu
from max.driver import (
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)

import max.pipelines.architectures.gpt_oss.quantization_format as quantization_format
from max.nn.mxfp4_moe import shared_layer


@pytest.fixture
def hopper() -> Iterator[None]:
    """One virtual Hopper GPU."""
    set_virtual_device_api("cuda")
    set_virtual_device_target_arch("sm_90a")
    set_virtual_device_count(1)
    yield
    set_virtual_device_count(0)


@pytest.fixture
def two_hoppers(hopper: None) -> None:
    """Two virtual Hopper GPUs."""
    set_virtual_device_count(2)


@pytest.fixture
def use_gpu(hopper: None, monkeypatch: pytest.MonkeyPatch) -> UseGpu:
    """Lets a test choose the GPU that configurations are made for.

    MAX keeps the first virtual device's architecture for the life of a process, so the
    name that it reports is replaced.
    """

    def use(architecture: str) -> None:
        for module in (quantization_format, shared_layer):
            monkeypatch.setattr(module, "accelerator_architecture_name", lambda: architecture)

    return use
