# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Logits of a gpt-oss checkpoint in MAX, once by prefill and once by decode, written to a file.

A batch of random prompts generates random continuations, whose logits come from decode steps.
Then every prefix of the sequences so made is prefilled anew, for the logits of the same positions.
Both run the graphs that ``max generate`` runs.

Compiling takes minutes and needs no GPU, so it can be done on another machine::

    max warm-cache --model-path CHECKPOINT --target cuda:sm_90a --export-mefs GRAPHS
    python tests/gpu/max_logits.py CHECKPOINT LOGITS.npz --precompiled-mefs GRAPHS

With ``--quantization-encoding bfloat16`` in both, the experts of an MXFP4 checkpoint are expanded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from stored_logits import PROMPT, SEQUENCES, STEPS, Logits

from max.pipelines import AutoModel

_BATCH = 16


def collect(model: AutoModel, vocabulary: int) -> Logits:
    """Run ``model`` and return its logits."""
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, vocabulary, (SEQUENCES, PROMPT)).tolist()
    decoded = model.generate(
        prompts,
        max_new_tokens=STEPS + 1,
        temperature=1.0,
        ignore_eos=True,
        output_logits=True,
    )
    assert decoded.logits is not None
    tokens = np.array(decoded.sequences)
    prefixes = [
        sequence[: PROMPT + step] for sequence in tokens.tolist() for step in range(STEPS + 1)
    ]
    prefill = np.concatenate(list(_prefill(model, prefixes)))
    shape = (SEQUENCES, STEPS + 1, -1)
    return Logits(tokens, prefill.reshape(shape), np.stack(decoded.logits))


def _prefill(model: AutoModel, prompts: list[list[int]]) -> Iterator[npt.NDArray[np.float32]]:
    for start in range(0, len(prompts), _BATCH):
        batch = prompts[start : start + _BATCH]
        result = model.generate(batch, max_new_tokens=1, ignore_eos=True, output_logits=True)
        assert result.logits is not None
        yield np.concatenate(result.logits)


def main(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint's folder.")],
    output: Annotated[Path, typer.Argument(help="Where to write the logits, a .npz file.")],
    precompiled_mefs: Annotated[
        Path | None, typer.Option(help="Graphs that max warm-cache --export-mefs wrote.")
    ] = None,
    quantization_encoding: Annotated[
        str | None, typer.Option(help="As for max generate, in place of the checkpoint's.")
    ] = None,
) -> None:
    """Write the prefill and decode logits of CHECKPOINT in MAX to OUTPUT."""
    options: dict[str, Any] = {"max_batch_size": _BATCH, "max_length": 1024}
    if precompiled_mefs is not None:
        options["precompiled_mefs"] = str(precompiled_mefs)
    if quantization_encoding is not None:
        options["quantization_encoding"] = quantization_encoding
    model = AutoModel(str(checkpoint), **options)
    config = model.pipeline_config.model.huggingface_config
    collect(model, config.vocab_size).save(output)


if __name__ == "__main__":
    typer.run(main)
