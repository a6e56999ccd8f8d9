# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Assembles PTX with the assembler that MAX itself uses, and reads what it reports.

MAX ships NVIDIA's PTX compiler as a library, so no CUDA toolkit is needed.
"""

from __future__ import annotations

import ctypes
import re
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
    """Assembles the PTX text of one kernel.

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
