# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Device memory: how much is used at most, and how much a run may use."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from moe_layer.errors import BenchmarkError
from serving.ballast import GIB
from serving.processes import environment

INTERVAL_MS = 100
MANAGED = 0.9
"""How much of a card's memory MAX's memory manager takes at most."""

MIB = 1 << 20


class PeakMemory:
    """The most memory of the first GPU in use while it is open, beyond what was in use before."""

    def __init__(self) -> None:
        self._before = query_memory("memory.used")
        self._most = self._before
        self._sampler = subprocess.Popen(
            [*_query("memory.used"), f"--loop-ms={INTERVAL_MS}"], stdout=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> float:
        """Stop sampling and return the peak in GiB."""
        self._sampler.terminate()
        self._sampler.wait()
        self._reader.join()
        return (self._most - self._before) / 1024

    def _read(self) -> None:
        assert self._sampler.stdout is not None
        for line in self._sampler.stdout:
            # The last line may be cut off.
            if line.endswith("\n"):
                self._most = max(self._most, int(line))


@contextmanager
def limited_memory(device_gib: float | None) -> Iterator[None]:
    """Leave as much memory free as a card of ``device_gib`` GiB has; all of it for ``None``.

    Another process holds the rest, so that nothing that MAX does can go beyond.

    Raises:
        BenchmarkError: If the GPU has less memory, or the rest cannot be held.
    """
    if device_gib is None:
        yield
        return
    # What the driver keeps to itself is part of a card's memory.
    free = int(device_gib * GIB) - query_memory("memory.reserved") * MIB
    holder = subprocess.Popen(
        [sys.executable, "-m", "serving.ballast", str(free)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        left = holder.stdout.readline()
        if not left or int(left) > free or int(left) < free - 64 * MIB:
            raise BenchmarkError(
                f"device memory cannot be limited to {device_gib} GiB: {left.strip() or 'nothing'} "
                f"bytes are free, where {free} should be."
            )
        yield
    finally:
        holder.stdin.close()
        holder.wait()


def manager_variables(device_gib: float | None) -> dict[str, str]:
    """What to tell MAX's memory manager of a limited card.

    By itself it goes by the memory that the device has, whatever of it is free, and MAX plans with
    what the manager has.
    """
    if device_gib is None:
        return {}
    size = int(MANAGED * device_gib * GIB)
    return {"MODULAR_DEVICE_CONTEXT_MEMORY_MANAGER_SIZE": str(size)}


def query_memory(field: str) -> int:
    """A field of nvidia-smi's for the first GPU, in MiB.

    Raises:
        BenchmarkError: If nvidia-smi does not tell.
    """
    try:
        return int(subprocess.run(_query(field), text=True, capture_output=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise BenchmarkError(f"nvidia-smi does not tell {field}: {error}") from error


def _query(field: str) -> list[str]:
    return ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"]
