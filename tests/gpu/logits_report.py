# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""MAX's logits against a float32 reference, beside transformers' own BF16 run::

PYTHONPATH=tests python tests/gpu/logits_report.py CHECKPOINT LOGITS.npz REPORT.json
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from stored_logits import PROMPT, Logits

from reference.float_reference import FloatReference

LogitArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Errors:
    """Relative L2 errors of some logits, over all positions and of the worst position alone."""

    overall: float
    worst_position: float
    same_best_token: float

    @classmethod
    def between(cls, values: LogitArray, reference: LogitArray) -> Errors:
        """The errors of ``values`` ``[..., vocabulary]`` against ``reference``."""
        difference = np.linalg.norm(values - reference, axis=-1).astype(np.float64)
        size = np.linalg.norm(reference, axis=-1).astype(np.float64)
        return cls(
            float(np.sqrt((difference**2).sum() / (size**2).sum())),
            float((difference / size).max()),
            float((values.argmax(axis=-1) == reference.argmax(axis=-1)).mean()),
        )


@dataclass(frozen=True)
class Report:
    """What the comparison found; the first four are against the float32 reference."""

    positions: int
    transformers_bf16: Errors
    prefill: Errors
    decode: Errors
    decode_against_prefill: Errors


def compare(checkpoint: Path, logits: Logits, device: str) -> Report:
    """Run transformers on the same tokens and compare."""
    reference = FloatReference(checkpoint, device)
    float32 = _reference_logits(reference, logits)
    reference.round_to_bf16()
    bf16 = _reference_logits(reference, logits)
    # Row 0 is no decode step, so it is left out of both.
    decode, prefill = logits.decode[:, 1:], logits.prefill[:, 1:]
    return Report(
        int(np.prod(decode.shape[:-1])),
        Errors.between(bf16[:, 1:], float32[:, 1:]),
        Errors.between(prefill, float32[:, 1:]),
        Errors.between(decode, float32[:, 1:]),
        Errors.between(decode, prefill),
    )


def _reference_logits(reference: FloatReference, logits: Logits) -> LogitArray:
    # The last token was sampled from the last logits; nothing follows it.
    return np.stack([reference.logits(row[:-1])[PROMPT - 1 :] for row in logits.tokens.tolist()])


def main(
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint's folder.")],
    logits: Annotated[Path, typer.Argument(help="The file that max_logits.py wrote.")],
    output: Annotated[Path, typer.Argument(help="Where to write the report, a .json file.")],
    device: Annotated[str, typer.Option(help="Where transformers runs.")] = "cuda",
) -> None:
    """Compare LOGITS with transformers on the same weights and write a report to OUTPUT."""
    report = json.dumps(asdict(compare(checkpoint, Logits.load(logits), device)), indent=2)
    output.write_text(report + "\n", encoding="utf-8")
    typer.echo(report)


if __name__ == "__main__":
    typer.run(main)
