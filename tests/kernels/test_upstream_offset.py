# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What keeps upstream's SM90 grouped matmul from compiling, and what the patch for it changes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import mojo_build

SOURCE = Path(__file__).with_name("move_tensor.mojo")


def test_a_tensor_moves_by_a_number_of_elements(tmp_path: Path) -> None:
    program = tmp_path / "move_tensor"
    mojo_build.build(SOURCE, SOURCE.parent, program)
    assert subprocess.check_output([program], text=True, env=dict(os.environ)) == "1.0\n"


def test_a_nested_offset_does_not_compile(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        mojo_build.build(SOURCE, SOURCE.parent, tmp_path / "move_tensor", "-D", "NESTED")
    assert "Coord is not a value type" in capfd.readouterr().err
