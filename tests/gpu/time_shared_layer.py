# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Times an MoE layer of Llama 4 Scout's sizes over MXFP4 experts, packed and expanded.

MAX's own layer for these experts dequantizes a stack and multiplies it as BF16. That grouped matmul
does not compile for Hopper, so the layer that stands for it here multiplies with
``grouped_linear``, which calls the same kernel.

Compiling takes minutes and needs no GPU, so it can be done on another machine::

    python tests/gpu/time_shared_layer.py compile GRAPHS
    python tests/gpu/time_shared_layer.py run GRAPHS packed
    python tests/gpu/time_shared_layer.py run GRAPHS expanded

Each form runs in a process of its own, whose memory then is that form's alone.
"""

from __future__ import annotations

import json
import time
from enum import Enum
from pathlib import Path
from typing import Annotated
from unittest import mock

import numpy as np
import typer
from max.driver import (
    Accelerator,
    Buffer,
    set_virtual_device_api,
    set_virtual_device_count,
    set_virtual_device_target_arch,
)
from max.dtype import DType
from max.engine import InferenceSession
from max.graph import DeviceRef, Graph, TensorType, TensorValue
from max.nn.moe import MoEGate, StackedMoE
from max.nn.quant_config import QuantConfig

from max.nn import dense_linear, quant_ops

EXPERTS, HIDDEN, WIDTH = 16, 5120, 8192
TOKENS = [1, 16, 64, 512, 4096]
STEPS = 20

app = typer.Typer()


class Form(str, Enum):
    """How the experts are multiplied."""

    PACKED = "packed"
    EXPANDED = "expanded"


def _grouped_matmul(
    x: TensorValue,
    weight: TensorValue,
    starts: TensorValue,
    ids: TensorValue,
    usage_stats: TensorValue,
) -> TensorValue:
    """``grouped_matmul_ragged`` as one that compiles; its grid needs no usage statistics."""
    return dense_linear.grouped_linear(x, weight, starts, ids)


def layer() -> StackedMoE:
    """The layer, on the first GPU."""
    return StackedMoE(
        devices=[DeviceRef.GPU()],
        hidden_dim=HIDDEN,
        num_experts=EXPERTS,
        num_experts_per_token=1,
        moe_dim=WIDTH,
        gate_cls=MoEGate,
        apply_router_weight_first=True,
        quant_config=QuantConfig.mxfp4(
            mlp_quantized_layers=range(1),
            embedding_output_dtype=DType.bfloat16,
            bias_dtype=None,
            can_use_fused_mlp=False,
        ),
    )


def graph_of(form: Form) -> Graph:
    """The graph of one layer, in one of its forms."""
    module = layer()
    for name, weight in module.raw_state_dict().items():
        weight.name = name
    types = [TensorType(DType.bfloat16, ["tokens", HIDDEN], DeviceRef.GPU())]
    extensions = [dense_linear.kernel_package_path()] if form is Form.EXPANDED else []
    with Graph(form.value, input_types=types, custom_extensions=extensions) as graph:
        if form is Form.PACKED:
            graph.output(module(graph.inputs[0].tensor))
        else:
            with (
                mock.patch.object(quant_ops, "multiplies_packed", lambda x, weight: False),
                mock.patch.object(quant_ops, "grouped_matmul_ragged", _grouped_matmul),
            ):
                graph.output(module(graph.inputs[0].tensor))
    return graph


@app.command()
def compile(graphs: Annotated[Path, typer.Argument(help="The folder to write to.")]) -> None:
    """Compile both forms for a Hopper GPU that need not be there."""
    set_virtual_device_api("cuda")
    set_virtual_device_target_arch("sm_90a")
    set_virtual_device_count(1)
    graphs.mkdir(parents=True, exist_ok=True)
    session = InferenceSession(devices=[Accelerator()])
    for form in Form:
        session.compile(graph_of(form)).export_mef(graphs / f"{form.value}.mef")


def random_weights(module: StackedMoE) -> dict[str, Buffer]:
    """Random codes, scales near one, and a small router."""
    rng = np.random.default_rng(0)
    weights = {}
    for name, weight in module.raw_state_dict().items():
        shape = [int(dim) for dim in weight.shape]
        if weight.dtype == DType.bfloat16:
            values = rng.normal(0, 0.02, shape).astype(np.float32)
            array = (values.view(np.uint32) >> 16).astype(np.uint16)
        else:
            low, high = (0, 256) if weight.dtype == DType.uint8 else (118, 124)
            array = rng.integers(low, high, shape, dtype=np.uint8)
        weights[name] = Buffer.from_numpy(array).view(weight.dtype, tuple(shape))
    return weights


@app.command()
def run(
    graphs: Annotated[Path, typer.Argument(help="What compile wrote.")],
    form: Annotated[Form, typer.Argument(help="The form to time.")],
) -> None:
    """Time one form on the GPU and print microseconds by tokens, and GB of its memory, as JSON."""
    device = Accelerator()
    free = device.stats["free_memory"]
    weights = random_weights(layer())
    model = InferenceSession(devices=[device]).load(
        graphs / f"{form.value}.mef", weights_registry=weights
    )
    rng = np.random.default_rng(1)
    times = {}
    for tokens in TOKENS:
        values = rng.normal(size=(tokens, HIDDEN)).astype(np.float32)
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        x = Buffer.from_numpy(bits).view(DType.bfloat16, bits.shape).to(device)
        model.execute(x)
        device.synchronize()
        start = time.perf_counter()
        for _ in range(STEPS):
            model.execute(x)
        device.synchronize()
        times[tokens] = round((time.perf_counter() - start) / STEPS * 1e6, 1)
    claimed = (free - device.stats["free_memory"]) / 1e9
    print(json.dumps({"form": form.value, "microseconds": times, "claimed_gb": round(claimed, 2)}))


if __name__ == "__main__":
    app()
