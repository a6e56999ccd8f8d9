# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Assembles PTX with NVIDIA's compilers, and reads what they report.

MAX ships the PTX compiler as a library. On a GPU it leaves PTX to the driver, whose compiler is
older; that of the ``ptxas`` of the lock file is as old as any driver that can be expected.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

import modular_libraries


class Resources(NamedTuple):
    """What one kernel takes: registers a thread, and bytes of stack and of spills a thread.

    ``serialized``: whether each ``wgmma`` waits for the one before it (C7510 to C7515), for which
    the compiler gives a reason but no error.
    """

    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    serialized: bool


class PtxError(ValueError):
    """The assembler rejected a program; the message is the assembler's."""


def assemble(ptx: str, architecture: str = "sm_90a") -> Resources:
    """Assembles the PTX text of one kernel as MAX does without a GPU.

    Raises:
        PtxError: If the text does not assemble for ``architecture``.
    """
    library = ctypes.CDLL(str(modular_libraries.find("libNVPTX.so")))
    text = ptx.encode()
    compiler = ctypes.c_void_p()
    _check(library.nvPTXCompilerCreate(ctypes.byref(compiler), ctypes.c_size_t(len(text)), text))
    try:
        options = [f"--gpu-name={architecture}".encode(), b"--verbose"]
        arguments = (ctypes.c_char_p * len(options))(*options)
        if library.nvPTXCompilerCompile(compiler, ctypes.c_int(len(options)), arguments):
            raise PtxError(_log(library, compiler, "Error"))
        return _parse(_log(library, compiler, "Info"))
    finally:
        _check(library.nvPTXCompilerDestroy(ctypes.byref(compiler)))


def assemble_as_drivers(ptx: str, architecture: str = "sm_90a") -> Resources:
    """Assembles the PTX text of one kernel as a driver does.

    Raises:
        PtxError: If the text does not assemble for ``architecture``.
    """
    (ptxas,) = (path for path in files("nvidia-cuda-nvcc-cu12") or () if path.name == "ptxas")
    command = [
        str(ptxas.locate()),
        "--verbose",
        f"--gpu-name={architecture}",
        "--output-file=/dev/null",
    ]
    done = subprocess.run([*command, "-"], input=ptx, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PtxError(done.stderr)
    return _parse(done.stderr)


def _check(status: int) -> None:
    if status:
        raise PtxError(f"the PTX compiler library failed with status {status}")


def _log(library: ctypes.CDLL, compiler: ctypes.c_void_p, kind: str) -> str:
    size = ctypes.c_size_t()
    _check(getattr(library, f"nvPTXCompilerGet{kind}LogSize")(compiler, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value + 1)
    _check(getattr(library, f"nvPTXCompilerGet{kind}Log")(compiler, text))
    return text.value.decode()


def _parse(log: str) -> Resources:
    registers = re.search(r"Used (\d+) registers", log)
    memory = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    )
    if registers is None or memory is None:
        raise PtxError(f"the PTX compiler reported no resources:\n{log}")
    return Resources(
        registers=int(registers[1]),
        stack_bytes=int(memory[1]),
        spill_store_bytes=int(memory[2]),
        spill_load_bytes=int(memory[3]),
        serialized="wgmma.mma_async instructions are serialized" in log,
    )


def kernels(folder: Path) -> dict[str, str]:
    """The PTX texts in a folder by kernel name."""
    found = {}
    for path in sorted(folder.glob("*.ptx")):
        text = path.read_text()
        (name,) = re.findall(r"\.entry (\w+)", text)
        found[name] = text
    return found
