# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Which token has which id: ordinary tokens, then the special tokens of the harmony format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_FIRST_SPECIAL = 199_998
"""Where the special tokens of gpt-oss begin, in its vocabulary of 201,088."""

_NAMED = {
    0: "<|startoftext|>",
    1: "<|endoftext|>",
    4: "<|return|>",
    5: "<|constrain|>",
    7: "<|channel|>",
    8: "<|start|>",
    9: "<|end|>",
    10: "<|message|>",
    14: "<|call|>",
    20: "<|endofprompt|>",
}
"""Special tokens by their distance from the first one; those between are reserved."""

_SPECIALS = max(_NAMED) + 1
BYTES = 256
MINIMUM_VOCABULARY = BYTES + _SPECIALS


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a vocabulary of ``size`` ids, at gpt-oss's own ids where they fit."""

    size: int

    @property
    def first_special(self) -> int:
        """The id of <|startoftext|>, the first special token."""
        return min(_FIRST_SPECIAL, self.size - _SPECIALS)

    def special_tokens(self) -> Iterator[tuple[int, str]]:
        """Ids and texts of the special tokens, the reserved ones up to the end included."""
        for token in range(self.first_special, self.size):
            yield token, _NAMED.get(token - self.first_special, f"<|reserved_{token}|>")

    def id_of(self, text: str) -> int:
        """The id of a special token."""
        return next(token for token, name in self.special_tokens() if name == text)
