# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Builds Mojo programs with the environment's own compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def build(program: Path, imports: Path, output: Path, *options: str) -> None:
    """Builds a program.

    Args:
        program: Its source.
        imports: The folder of the packages and modules that it imports.
        output: What to write.
        options: More options of ``mojo build``.

    Raises:
        subprocess.CalledProcessError: If it does not compile.
    """
    mojo = Path(sys.executable).with_name("mojo")
    subprocess.run(
        [mojo, "build", "-I", imports, *options, program, "-o", output],
        check=True,
        # Without what the MAX runtime, once loaded, adds to the process behind Python's back.
        env=dict(os.environ),
    )
