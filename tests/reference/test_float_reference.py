# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The float reference against transformers' own loading, and against the NumPy MoE layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the float reference runs on PyTorch")

from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.utils.quantization_config import Mxfp4Config  # noqa: E402

from reference import moe  # noqa: E402
from reference.float_reference import FloatReference, relative_error  # noqa: E402
from reference.made_checkpoint import SMALL, load_tensors, make_small  # noqa: E402
from reference.mxfp4 import from_bf16_bits  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("made") / "small")


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    return [int(token) for token in np.random.default_rng(3).integers(0, SMALL.vocab, 200)]


def test_bf16_run_is_that_of_a_model_transformers_loaded(folder: Path, tokens: list[int]) -> None:
    loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=Mxfp4Config(dequantize=True),
        dtype=torch.bfloat16,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    with torch.inference_mode():
        expected = loaded(torch.tensor([tokens])).logits[0].float().numpy()
    reference = FloatReference(folder, "cpu")
    float32 = reference.logits(tokens)
    reference.round_to_bf16()
    np.testing.assert_array_equal(reference.logits(tokens), expected)
    assert 1e-3 < relative_error(expected, float32) < 0.1


def test_logits_are_neither_flat_nor_one_peak(folder: Path, tokens: list[int]) -> None:
    logits = FloatReference(folder, "cpu").logits(tokens)
    assert np.isfinite(logits).all()
    assert 1.5 < logits.std() < 2.5
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=-1, keepdims=True)
    assert 0.02 < probabilities.max(axis=-1).mean() < 0.5


def test_moe_layer_is_that_of_the_numpy_reference(folder: Path) -> None:
    tensors = load_tensors(folder)
    mlp = FloatReference(folder, "cpu")._model.model.layers[1].mlp
    hidden = np.random.default_rng(4).standard_normal((40, SMALL.hidden)).astype(np.float32)
    with torch.inference_mode():
        expected, _ = mlp(torch.from_numpy(hidden)[None])

    def stored(name: str) -> np.ndarray:
        tensor = tensors[f"model.layers.1.mlp.{name}"]
        return from_bf16_bits(tensor.bits) if tensor.dtype == "BF16" else tensor.bits

    weights = moe.LayerWeights(
        stored("router.weight"),
        stored("router.bias"),
        stored("experts.gate_up_proj_blocks").reshape(SMALL.experts, 2 * SMALL.intermediate, -1),
        stored("experts.gate_up_proj_scales"),
        stored("experts.gate_up_proj_bias"),
        stored("experts.down_proj_blocks").reshape(SMALL.experts, SMALL.hidden, -1),
        stored("experts.down_proj_scales"),
        stored("experts.down_proj_bias"),
    )
    result = moe.moe_layer(hidden, weights, SMALL.top_k)
    np.testing.assert_allclose(expected[0].numpy(), result, rtol=1e-4, atol=1e-5)


def test_routing_spreads_over_the_experts(folder: Path, tokens: list[int]) -> None:
    model = FloatReference(folder, "cpu")._model
    with torch.inference_mode():
        scores = model(torch.tensor([tokens]), output_router_logits=True).router_logits
    for layer in scores:
        chosen = moe.choose_experts(layer.numpy(), SMALL.top_k).ids
        share = np.bincount(chosen.reshape(-1), minlength=SMALL.experts) / chosen.size
        assert share.min() > 0.05
        assert share.max() < 0.5


def test_a_checkpoint_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    folder = make_small(tmp_path / "cut")
    (folder / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(ValueError, match="has no tensor "):
        FloatReference(folder, "cpu")
