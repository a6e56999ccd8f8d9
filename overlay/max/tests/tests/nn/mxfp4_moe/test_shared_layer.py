# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""MAX's own MoE layer over MXFP4 experts, in the form that Llama 4 gives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from max.driver import (
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)
from max.dtype import DType
from max.graph import DeviceRef, Graph, TensorType
from max.nn.moe import MoEGate, StackedMoE
from max.nn.quant_config import QuantConfig

from max.nn import mxfp4_moe
from max.nn.mxfp4_moe import shared_layer

EXPERTS, TOP_K = 8, 2


@pytest.fixture
def hopper() -> Iterator[None]:
    """One virtual Hopper GPU."""
    set_virtual_device_api("cuda")
    set_virtual_device_target_arch("sm_90a")
    set_virtual_device_count(1)
    yield
    set_virtual_device_count(0)


def layer_graph(hidden: int, width: int) -> Graph:
    """The graph of one layer, which loads no kernel package itself."""
    device = DeviceRef.GPU()
    layer = StackedMoE(
        devices=[device],
        hidden_dim=hidden,
        num_experts=EXPERTS,
        num_experts_per_token=TOP_K,
        moe_dim=width,
        gate_cls=MoEGate,
        apply_router_weight_first=True,
        quant_config=QuantConfig.mxfp4(
            mlp_quantized_layers=range(1),
            embedding_output_dtype=DType.bfloat16,
            bias_dtype=None,
            can_use_fused_mlp=False,
        ),
    )
    for name, weight in layer.raw_state_dict().items():
        weight.name = name
    types = [TensorType(DType.bfloat16, ["tokens", hidden], device)]
    with Graph("layer", input_types=types) as graph:
        graph.output(layer(graph.inputs[0].tensor))
    return graph


@pytest.mark.parametrize(("hidden", "width", "panels"), [(256, 256, 2), (256, 128, 1), (96, 64, 0)])
def test_experts_stay_packed_on_hopper(hopper: None, hidden: int, width: int, panels: int) -> None:
    graph = layer_graph(hidden, width)
    assert graph.kernel_libraries_paths.count(mxfp4_moe.kernel_package_path()) == 1
    text = str(graph)
    assert text.count('symbol = "mxfp4_moe_matmul"') == 2
    assert text.count('symbol = "mxfp4_moe_to_panels"') == panels
    assert "mo.dequant.mxfp4" not in text
    assert "grouped.matmul" not in text


def test_other_gpus_expand_as_before(hopper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_layer, "accelerator_architecture_name", lambda: "sm_100a")
    graph = layer_graph(256, 256)
    assert mxfp4_moe.kernel_package_path() not in graph.kernel_libraries_paths
    text = str(graph)
    assert text.count("mo.dequant.mxfp4") == 2
    assert "grouped.matmul" in text
    assert "mxfp4_moe" not in text
