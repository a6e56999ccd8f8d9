# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Measures on the GPU host, with torch, Triton and the standard library alone."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from moe_layer.bundle import BENCHMARKS, unpack
from moe_layer.errors import BenchmarkError
from moe_layer.limits import Rates
from moe_layer.results import OURS, PEERS, Results, Table, parse_measurements
from moe_layer.shapes import EXPERTS

PEER_MODULES = {
    "triton_kernels": "moe_layer.peers.triton_layer",
    "marlin": "moe_layer.peers.marlin_layer",
}
PROGRAM = "moe_layer"


@dataclass(frozen=True)
class Program:
    """One program to run."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def measure(ours: Path | None, peers: Path | None, timeout: float) -> Results:
    """Runs everything that the folders hold, one after the other.

    A program that fails is named in the results' failures, and the others still run.

    Args:
        ours: A folder of ``build --ours``, if ours is to be measured.
        peers: A folder of ``build --peers``, if the peers are.
        timeout: Seconds that each program may take.

    Raises:
        BenchmarkError: If a folder is incomplete, or there is no NVIDIA driver.
    """
    with tempfile.TemporaryDirectory(prefix="moe-layer-") as name:
        folder = Path(name)
        versions: dict[str, str] = {}
        if ours:
            versions.update(unpack(ours, "ours", folder / "ours"))
        if peers:
            versions.update(unpack(peers, "peers", folder / "peers"))
        device, versions["driver"] = query_device()
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        results = Results(device, today, versions)
        _measure_rates(results, timeout)
        for experts in EXPERTS:
            if ours:
                program = _ours(folder / "ours", experts, "layer")
                _measure_into(results, results.layer, OURS, program, timeout)
            if peers:
                for peer in PEERS:
                    program = _peer(folder / "peers", peer, experts)
                    _measure_into(results, results.layer, peer, program, timeout)
        if ours:
            for experts in EXPERTS:
                program = _ours(folder / "ours", experts, "matmul")
                _measure_into(results, results.matmul, OURS, program, timeout)
    return results


def query_device() -> tuple[str, str]:
    """Returns the name of the first GPU and the driver's version.

    Raises:
        BenchmarkError: If nvidia-smi does not tell.
    """
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    try:
        output = subprocess.run(command, text=True, capture_output=True, check=True).stdout
        name, driver = output.strip().rsplit(", ", 1)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise BenchmarkError(f"nvidia-smi does not tell the GPU: {error}") from error
    return name, driver


def run_program(program: Program, timeout: float) -> tuple[str, str | None]:
    """Runs a program, and returns its output and, where it failed, why.

    Args:
        program: What to run.
        timeout: Seconds that it may take.
    """
    start = time.monotonic()
    failure = None
    try:
        process = subprocess.run(
            program.command,
            env={**os.environ, **program.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        printed = process.stdout
        if process.returncode != 0:
            said = process.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
            failure = f"{program.name} exited with {process.returncode}: {said[0]}"
            print(process.stderr, file=sys.stderr)
    except subprocess.TimeoutExpired as error:
        # Bytes even in text mode, and perhaps half a line.
        bytes_printed = error.stdout if isinstance(error.stdout, bytes) else b""
        printed = bytes_printed.decode(errors="replace").rpartition("\n")[0]
        failure = f"{program.name} took more than {timeout:.0f} s"
    except OSError as error:
        printed, failure = "", f"{program.name} did not start: {error}"
    print(f"{program.name}: {failure or 'done'}, {time.monotonic() - start:.1f} s", flush=True)
    return printed, failure


def _ours(folder: Path, experts: int, what: str) -> Program:
    libraries = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":")
    command = (str(folder / PROGRAM), str(experts), what)
    return Program(f"ours, {what}, {experts} experts", command, {"LD_LIBRARY_PATH": libraries})


def _peer(folder: Path, peer: str, experts: int) -> Program:
    name = f"{peer}, {experts} experts"
    return _python(name, PEER_MODULES[peer], str(folder), str(experts))


def _python(name: str, module: str, *arguments: str) -> Program:
    paths = f"{BENCHMARKS}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    return Program(name, (sys.executable, "-m", module, *arguments), {"PYTHONPATH": paths})


def _measure_rates(results: Results, timeout: float) -> None:
    output, failure = run_program(_python("rates", "moe_layer.rates"), timeout)
    try:
        if failure:
            raise BenchmarkError(failure)
        report = json.loads(output)
        results.rates = Rates(report["copy_tb_per_s"], report["matmul_tflop_per_s"])
        results.versions["torch"], results.versions["triton"] = report["torch"], report["triton"]
    except (BenchmarkError, ValueError, KeyError) as error:
        results.failures.append(str(error) if failure else f"rates printed no rates: {error!r}")


def _measure_into(
    results: Results, table: Table, implementation: str, program: Program, timeout: float
) -> None:
    """Adds a program's times; what it printed before it failed counts."""
    output, failure = run_program(program, timeout)
    if failure:
        results.failures.append(failure)
    try:
        table.add(implementation, parse_measurements(program.name, output))
    except BenchmarkError as error:
        if not failure or output.strip():
            results.failures.append(str(error))
