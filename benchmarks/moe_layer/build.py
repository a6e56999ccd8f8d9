# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Makes the folders that the GPU host needs: our program and the peers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

from moe_layer.bundle import BENCHMARKS, pack
from moe_layer.errors import BenchmarkError
from moe_layer.peers.fetch import VLLM_VERSION, fetch_peers

SOURCES = BENCHMARKS.parent / "overlay" / "max" / "kernels" / "src"
PROGRAM = "moe_layer"
LIBRARIES = (
    "libAsyncRTMojoBindings.so",
    "libAsyncRTRuntimeGlobals.so",
    "libKGENCompilerRTShared.so",
    "libMGPRT.so",
    "libMSupportGlobals.so",
    "libNVPTX.so",
    "libmax_profiler_shim.so",
)
"""What the program loads of the MAX that it was compiled with."""


def build_ours(folder: Path) -> None:
    """Compiles our program with the Mojo of this Python's environment.

    Raises:
        BenchmarkError: If the environment has no MAX, or the program does not compile.
    """
    mojo = Path(sys.executable).with_name("mojo")
    try:
        versions = {"max": version("modular"), "mojo": version("mojo")}
    except PackageNotFoundError as error:
        raise BenchmarkError(
            f"{sys.executable} has no {error.name}: use the Python of .venv, which "
            "scripts/setup.sh makes."
        ) from error
    libraries = _libraries()
    with tempfile.TemporaryDirectory(prefix="moe-layer-") as name:
        program = Path(name) / PROGRAM
        _compile(mojo, libraries[LIBRARIES[0]].parent / "mojo", program)
        pack(folder, "ours", {PROGRAM: program, **libraries}, versions)


def build_peers(folder: Path, wheel: Path | None) -> None:
    """Fetches the peers from vLLM's wheel, which is downloaded where it is not given."""
    with tempfile.TemporaryDirectory(prefix="moe-layer-") as name:
        pack(folder, "peers", fetch_peers(Path(name), wheel), {"vllm": VLLM_VERSION})


def _libraries() -> dict[str, Path]:
    found = {
        file.name: Path(str(file.locate()))
        for distribution in ("max-core", "mojo-compiler", "modular")
        for file in files(distribution) or ()
        if file.name in LIBRARIES
    }
    missing = sorted(set(LIBRARIES) - set(found))
    if missing:
        raise BenchmarkError(f"the installed MAX has no {', '.join(missing)}.")
    return found


def _compile(mojo: Path, packages: Path, program: Path) -> None:
    """Compiles against upstream's packages alone, since an installed one of ours may be older."""
    ours = {folder.name for folder in SOURCES.iterdir()}
    with tempfile.TemporaryDirectory(prefix="mojo-packages-") as name:
        for package in packages.glob("*.mojoc"):
            if package.stem not in ours:
                (Path(name) / package.name).symlink_to(package)
        environment = {**os.environ, "MODULAR_MOJO_MAX_IMPORT_PATH": name}
        command = [str(mojo), "build", "-I", str(SOURCES), "--target-accelerator=sm_90a"]
        command += [str(BENCHMARKS / "moe_layer.mojo"), "-o", str(program)]
        result = subprocess.run(
            command, env=environment, text=True, capture_output=True, check=False
        )
    if result.returncode != 0 or not program.is_file():
        raise BenchmarkError(f"moe_layer.mojo does not compile:\n{result.stderr.strip()}")
