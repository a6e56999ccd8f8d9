# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The logits that MAX computed for some sequences, and the file that they are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SEQUENCES = 2
PROMPT = 64
STEPS = 256


class Logits(NamedTuple):
    """Sequences of tokens, and the logits after their prompts.

    ``tokens`` int64 ``[S, P + steps + 1]``; ``prefill`` and ``decode`` float32
    ``[S, steps + 1, vocabulary]``, where row ``i`` follows the first ``P + i`` tokens. Row 0 of
    ``decode`` was prefilled too.
    """

    tokens: npt.NDArray[np.int64]
    prefill: npt.NDArray[np.float32]
    decode: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write to ``path``, a .npz file."""
        np.savez(path, tokens=self.tokens, prefill=self.prefill, decode=self.decode)

    @classmethod
    def load(cls, path: Path) -> Logits:
        """Read what ``save`` wrote."""
        with np.load(path) as stored:
            return cls(stored["tokens"], stored["prefill"], stored["decode"])
