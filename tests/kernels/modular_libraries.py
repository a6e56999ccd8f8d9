# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Where the installed MAX keeps its shared libraries."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def find(name: str) -> Path:
    """The path of a library that the ``max-core`` distribution installed.

    Raises:
        FileNotFoundError: If it installed none of that name.
    """
    for file in importlib.metadata.files("max-core") or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"the installed max-core has no {name}")
