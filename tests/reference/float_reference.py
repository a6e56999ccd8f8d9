# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Logits of transformers' gpt-oss on a checkpoint's weights, in float32 and in BF16.

The MXFP4 experts are expanded here, exactly, so that both runs have the same weights whatever
transformers' own quantizer does; attention and experts run in plain PyTorch, without TF32 and
without kernels from elsewhere.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from reference.mxfp4 import value_table

_BLOCKS, _SCALES = "_blocks", "_scales"


class FloatReference:
    """transformers' gpt-oss with the weights of ``folder``, in float32 until rounded to BF16.

    Args:
        folder: A checkpoint in Hugging Face layout with MXFP4 experts.
        device: Where to run, such as ``"cuda"``; needs 4 bytes a dequantized weight there.
    """

    def __init__(self, folder: Path, device: str) -> None:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        config = AutoConfig.from_pretrained(folder)
        del config.quantization_config
        with torch.device(device):
            self._model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config,
                dtype=torch.float32,
                attn_implementation="eager",
                experts_implementation="eager",
            ).eval()
        self._device = device
        self._load(folder)

    def round_to_bf16(self) -> None:
        """Round every parameter to BF16 in place; later runs compute in BF16.

        The checkpoint's values all fit BF16, so the weights stay as they are. Buffers, such as the
        frequencies of the rotary embedding, stay float32 as they do in a model loaded as BF16.
        """
        for parameter in self._model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)

    def logits(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits of every position of one sequence, float32 ``[len(tokens), vocabulary]``."""
        ids = torch.tensor([list(tokens)], device=self._device)
        with torch.inference_mode():
            result = self._model(ids, use_cache=False).logits[0]
        logits: npt.NDArray[np.float32] = result.float().cpu().numpy()
        return logits

    def _load(self, folder: Path) -> None:
        parameters = dict(self._model.named_parameters())
        missing = set(parameters)
        for name, values in _tensors(folder, self._device):
            if name.endswith(_BLOCKS):
                stem = name.removesuffix(_BLOCKS)
                scales = _tensor(folder, stem + _SCALES, self._device)
                for expert in range(len(values)):
                    dense = dequantize(values[expert], scales[expert])
                    parameters[stem].data[expert].copy_(dense.T)
                missing.remove(stem)
            elif not name.endswith(_SCALES):
                parameters[name].data.copy_(values)
                missing.remove(name)
        if missing:
            raise ValueError(f"{folder} has no tensor {min(missing)}")


def dequantize(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Expand ``[N, K / 32, 16]`` blocks and ``[N, K / 32]`` scales to float32 ``[N, K]``."""
    table = torch.from_numpy(value_table()).to(blocks.device).flatten()
    codes = torch.stack([blocks & 15, blocks >> 4], dim=-1).to(torch.int32)
    index = scales.to(torch.int32)[..., None, None] * 16 + codes
    return table[index].reshape(len(blocks), -1)


def relative_error(values: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    """The L2 norm of the difference over that of ``reference``."""
    difference = np.linalg.norm(np.subtract(values, reference, dtype=np.float64))
    return float(difference / np.linalg.norm(reference.astype(np.float64)))


def _tensors(folder: Path, device: str) -> Iterator[tuple[str, torch.Tensor]]:
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt", device=device) as file:
            for name in file.keys():  # noqa: SIM118 - the file is no mapping
                yield name, file.get_tensor(name)


def _tensor(folder: Path, name: str, device: str) -> torch.Tensor:
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt", device=device) as file:
            if name in file.keys():  # noqa: SIM118 - the file is no mapping
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
    raise ValueError(f"{folder} has no tensor {name}")
