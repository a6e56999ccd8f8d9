# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Times the Triton MXFP4 MoE that vLLM ships, ``triton_kernels.matmul_ogs``.

usage: python -m moe_layer.peers.triton_layer FOLDER EXPERTS

FOLDER holds ``triton_kernels/``. Timed is gather + gate/up + bias + SwiGLU, then down + bias +
scatter + weighted sum.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from moe_layer.peers.timing import Layers, time_peer
from moe_layer.shapes import HIDDEN, TOP_K


class TritonLayer:
    """A layer of random packed weights, in the layout that the kernels want."""

    def __init__(self, experts: int) -> None:
        from triton_kernels.matmul_ogs import FnSpecs, FusedActivation
        from triton_kernels.matmul_ogs_details import opt_flags
        from triton_kernels.swiglu import swiglu_fn

        opt_flags.update_opt_flags_constraints({"split_k": 1})  # as vLLM sets on Hopper
        self.experts = experts
        self.gate_up, self.gate_up_precision = _weights(experts, 2 * HIDDEN)
        self.down, self.down_precision = _weights(experts, HIDDEN)
        self.gate_up_bias = torch.randn(experts, 2 * HIDDEN, device="cuda") * 0.1
        self.down_bias = torch.randn(experts, HIDDEN, device="cuda") * 0.1
        swiglu = FnSpecs("swiglu", swiglu_fn, ("alpha", "limit"))
        self.activation = FusedActivation(swiglu, (1.702, 7.0), 2)

    def prepare(self, choices: list[torch.Tensor]) -> Layers:
        """Sorts by expert, which vLLM does in the router."""
        from triton_kernels.routing import routing

        tokens = choices[0].shape[0]
        hidden = [torch.randn(tokens, HIDDEN, device="cuda", dtype=torch.bfloat16) for _ in choices]
        routes = [routing(self._scores(chosen), TOP_K) for chosen in choices]

        def layers() -> None:
            for rows, route in zip(hidden, routes, strict=True):
                self.run(rows, *route)

        return layers

    def run(self, hidden: torch.Tensor, data: Any, gather: Any, scatter: Any) -> None:
        """The layer for one routing."""
        from triton_kernels.matmul_ogs import matmul_ogs

        gated = matmul_ogs(
            hidden,
            self.gate_up,
            self.gate_up_bias,
            data,
            gather_indx=gather,
            precision_config=self.gate_up_precision,
            fused_activation=self.activation,
        )
        matmul_ogs(
            gated,
            self.down,
            self.down_bias,
            data,
            scatter_indx=scatter,
            precision_config=self.down_precision,
            gammas=data.gate_scal,
        )

    def _scores(self, chosen: torch.Tensor) -> torch.Tensor:
        """Router scores whose largest are those of the chosen experts."""
        scores = torch.zeros(chosen.shape[0], self.experts, device="cuda")
        scores.scatter_(1, chosen.long(), 1 + torch.rand(chosen.shape, device="cuda"))
        return scores.bfloat16()


def _weights(experts: int, features: int) -> tuple[Any, Any]:
    from triton_kernels.matmul_ogs import FlexCtx, PrecisionConfig
    from triton_kernels.numerics import InFlexData
    from triton_kernels.tensor import FP4, convert_layout, wrap_torch_tensor
    from triton_kernels.tensor_details import layout

    def noise(low: int, high: int, columns: int) -> torch.Tensor:
        shape = (experts, features, columns)
        return torch.randint(low, high, shape, device="cuda", dtype=torch.uint8).transpose(-2, -1)

    values = wrap_torch_tensor(noise(0, 256, HIDDEN // 2), dtype=FP4)
    scales = wrap_torch_tensor(noise(119, 124, HIDDEN // 32))
    value_layout, value_options = layout.make_default_matmul_mxfp4_w_layout(mx_axis=1)
    scale_layout, scale_options = layout.make_default_matmul_mxfp4_w_scale_layout(
        mx_axis=1, num_warps=8
    )
    return convert_layout(values, value_layout, **value_options), PrecisionConfig(
        weight_scale=convert_layout(scales, scale_layout, **scale_options),
        flex_ctx=FlexCtx(rhs_data=InFlexData()),
    )


def main(folder: Path, experts: int) -> None:
    """Print the times of one number of experts."""
    sys.path.insert(0, str(folder))
    torch.manual_seed(0)
    time_peer(experts, TritonLayer(experts).prepare)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
