# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The toy checkpoint's whole pipeline, compiled for a Hopper GPU that need not be there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from checkpoint import PRESETS, make_checkpoint

MAX = Path(sys.executable).with_name("max")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    make_checkpoint(folder, PRESETS["toy"], seed=0, force=False, advance=lambda _: None)
    return folder


def warm_cache(checkpoint: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compiles a checkpoint's pipeline for sm_90a as the command line does."""
    command = [str(MAX), "warm-cache", "--target", "cuda:sm_90a"]
    command += ["--model-path", str(checkpoint), *flags]
    # MAX's runtime has put a PYTHONEXECUTABLE of its own into this process's environment, past
    # os.environ, and a child that inherits it does not find its packages.
    environment = dict(os.environ)
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def kernel_instances(graph: bytes) -> Counter[str]:
    """How many instances a compiled graph has of each expert kernel.

    A name in it ends in eight hexadecimal digits, which tell instances apart.
    """
    symbols = set(re.findall(rb"(mxfp4_moe_\w+)_([0-9a-f]{8})(?!\w)", graph))
    return Counter(name.decode() for name, _ in symbols)


def test_the_pipeline_compiles_each_kernel_once(toy: Path, tmp_path: Path) -> None:
    graphs = tmp_path / "graphs"
    result = warm_cache(toy, "--export-mefs", str(graphs))
    assert result.returncode == 0, result.stderr[-4000:]
    assert "expanded to BF16" not in result.stderr
    (graph,) = graphs.glob("gpt_oss-*.mef")
    instances = kernel_instances(graph.read_bytes())
    assert any(name.startswith("mxfp4_moe_route_") for name in instances), instances
    assert len(instances) > 4
    assert set(instances.values()) == {1}, instances


def test_a_truncated_shard_is_named_before_anything_is_compiled(toy: Path) -> None:
    shard = max(toy.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    result = warm_cache(toy)
    assert result.returncode != 0
    assert f"{shard} is truncated or corrupt" in result.stderr
    assert "Building model graph" not in result.stderr
