# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What was measured: from the programs' output to a results file, and several files to one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from moe_layer.errors import BenchmarkError
from moe_layer.limits import LAYER_MATRICES, MATMUL_MATRICES, Rates
from moe_layer.shapes import EXPERTS, TOKENS

PEERS = ("triton_kernels", "marlin")
OURS = "ours"
VERSIONS = ("max", "mojo", "driver", "torch", "triton", "vllm")
TIMING = (
    "Microseconds a layer: median of 11 repeats over 16 uniform random routings (4 above 512 "
    "tokens), the same ones for every implementation, each with tokens of its own, so that the "
    "weights are not in L2. Ours: wall-clock time around back-to-back launches, from the chosen "
    "experts to the layer's output: sorting by expert, gather + gate/up + bias + SwiGLU, down + "
    "bias + weight, sum over choices. Peers: CUDA events around the replay of one CUDA graph, "
    "the same without sorting by expert, which was done before. Plain matmul: gate/up alone, "
    "rows sorted before, timed as ours. Limit: the larger of the active experts' packed bytes at "
    "the copy rate (bytes read and written) and the layer's operations at the rate of a BF16 "
    "cuBLAS product of 32768 x 2880 x 5760, both measured in the same run."
)

Key = tuple[int, int]
"""Experts and tokens."""


@dataclass(frozen=True)
class Measurement:
    """One line of a program's output."""

    experts: int
    tokens: int
    active_experts: float
    us: float

    @property
    def key(self) -> Key:
        return self.experts, self.tokens


def parse_measurements(program: str, output: str) -> list[Measurement]:
    """Reads a program's output: JSON objects, one a line, and other lines to be passed over.

    Raises:
        BenchmarkError: If an object is not a measurement, or there is none.
    """
    found = []
    for line in output.splitlines():
        if line.startswith("{"):
            try:
                found.append(Measurement(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise BenchmarkError(f"{program} printed no measurement: {line}") from error
    if not found:
        raise BenchmarkError(f"{program} printed no measurement.")
    return found


@dataclass
class Table:
    """Times of some implementations by experts and tokens."""

    active_experts: dict[Key, float] = field(default_factory=dict)
    us: dict[str, dict[Key, float]] = field(default_factory=dict)

    def add(self, implementation: str, measurements: Iterable[Measurement]) -> None:
        """Adds what was measured of one implementation.

        Raises:
            BenchmarkError: If one of the times is there already, or was taken with other routings.
        """
        times = self.us.setdefault(implementation, {})
        for one in measurements:
            where = f"{one.experts} experts and {one.tokens} tokens"
            if one.key in times:
                raise BenchmarkError(f"there are two times of {implementation} for {where}.")
            active = self.active_experts.setdefault(one.key, one.active_experts)
            if active != one.active_experts:
                raise BenchmarkError(
                    f"{implementation} has {one.active_experts} active experts for {where}, and "
                    f"another implementation {active}: their routings differ."
                )
            times[one.key] = one.us

    def rows(self) -> list[Key]:
        """Experts and tokens of the rows, in the order of a report."""
        return sorted(self.active_experts, key=lambda key: (-key[0], key[1]))

    def missing(self, implementations: Iterable[str]) -> list[str]:
        """Names, for each implementation and number of experts, the times that are not there."""
        lines = []
        for name in implementations:
            for experts in EXPERTS:
                times = self.us.get(name, {})
                gaps = [str(tokens) for tokens in TOKENS if (experts, tokens) not in times]
                if gaps:
                    lines.append(f"{name}, {experts} experts: {', '.join(gaps)} tokens")
        return lines


@dataclass
class Results:
    """Everything that a results file holds."""

    device: str
    date: str
    versions: dict[str, str] = field(default_factory=dict)
    rates: Rates | None = None
    layer: Table = field(default_factory=Table)
    matmul: Table = field(default_factory=Table)
    failures: list[str] = field(default_factory=list)
    """What did not run, and why."""

    def missing(self) -> list[str]:
        """Names what a complete file would also hold."""
        lines = [] if self.rates else ["the device's rates"]
        lines += self.layer.missing((OURS, *PEERS))
        return lines + [f"plain matmul of {line}" for line in self.matmul.missing((OURS,))]

    def to_json(self) -> dict[str, Any]:
        """The content of a results file; what was not measured is null."""
        rates = self.rates
        content: dict[str, Any] = {
            "device": self.device,
            "date": self.date,
            "versions": {name: self.versions.get(name) for name in VERSIONS},
            "timing": TIMING,
            "copy_tb_per_s": rates.copy_tb_per_s if rates else None,
            "matmul_tflop_per_s": rates.matmul_tflop_per_s if rates else None,
        }
        if self.failures:
            content["failures"] = self.failures
        content["rows"] = []
        for key in self.layer.rows():
            row = self._row(self.layer, key)
            row["peers_us"] = {name: self.layer.us.get(name, {}).get(key) for name in PEERS}
            row["limit_us"] = self._limit(self.layer, key, LAYER_MATRICES)
            content["rows"].append(row)
        content["matmul_rows"] = [
            {
                **self._row(self.matmul, key),
                "limit_us": self._limit(self.matmul, key, MATMUL_MATRICES),
            }
            for key in self.matmul.rows()
        ]
        return content

    @staticmethod
    def _row(table: Table, key: Key) -> dict[str, Any]:
        return {
            "experts": key[0],
            "tokens": key[1],
            "active_experts": table.active_experts[key],
            "ours_us": table.us.get(OURS, {}).get(key),
        }

    def _limit(self, table: Table, key: Key, matrices: int) -> float | None:
        if self.rates is None:
            return None
        return round(self.rates.limit_us(table.active_experts[key], key[1], matrices), 3)


class Writable(Protocol):
    """What ``write_results`` takes."""

    def to_json(self) -> dict[str, Any]:
        """The content of a results file; lists whose names end in ``rows`` have a row a line."""


def write_results(results: Writable, path: Path) -> None:
    """Writes a results file, a row a line."""
    content = results.to_json()
    lines = []
    for name, value in content.items():
        if name.endswith("rows") and value:
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            lines.append(f'  "{name}": [\n{rows}\n  ]')
        else:
            text = json.dumps(value, indent=2).replace("\n", "\n  ")
            lines.append(f'  "{name}": {text}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read_results(path: Path) -> Results:
    """Reads a results file.

    Raises:
        BenchmarkError: If it is missing or something else.
    """
    try:
        content = json.loads(path.read_text())
        results = Results(content["device"], content["date"])
        versions: Mapping[str, str | None] = content["versions"]
        results.versions = {name: value for name, value in versions.items() if value}
        results.failures = list(content.get("failures", []))
        if content["copy_tb_per_s"] and content["matmul_tflop_per_s"]:
            results.rates = Rates(content["copy_tb_per_s"], content["matmul_tflop_per_s"])
        for row in content["rows"]:
            for name, us in {OURS: row["ours_us"], **row["peers_us"]}.items():
                _add(results.layer, name, row, us)
        for row in content["matmul_rows"]:
            _add(results.matmul, OURS, row, row["ours_us"])
    except OSError as error:
        raise BenchmarkError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(f"{path} is no results file: {error!r}.") from error
    return results


def _add(table: Table, name: str, row: Mapping[str, Any], us: float | None) -> None:
    if us is not None:
        one = Measurement(row["experts"], row["tokens"], row["active_experts"], us)
        table.add(name, [one])


def merge_results(paths: list[Path]) -> Results:
    """Reads several files of one device and date as one.

    Of each rate the larger one counts, since it makes the harder limit.

    Raises:
        BenchmarkError: If the files differ in device, date or a version, or hold a time twice.
    """
    first, *others = paths
    merged = read_results(first)
    for path in others:
        other = read_results(path)
        for what, ours, theirs in (
            ("device", merged.device, other.device),
            ("date", merged.date, other.date),
            *((name, merged.versions.get(name), other.versions.get(name)) for name in VERSIONS),
        ):
            if ours and theirs and ours != theirs:
                raise BenchmarkError(
                    f"{path} is of {what} {theirs}, and {first} of {ours}: they cannot be merged."
                )
        merged.versions = {**merged.versions, **other.versions}
        merged.rates = _larger(merged.rates, other.rates)
        merged.failures += other.failures
        for table, more in ((merged.layer, other.layer), (merged.matmul, other.matmul)):
            for name, times in more.us.items():
                try:
                    table.add(
                        name,
                        [
                            Measurement(*key, more.active_experts[key], us)
                            for key, us in times.items()
                        ],
                    )
                except BenchmarkError as error:
                    raise BenchmarkError(f"{path} cannot be merged: {error}") from error
    return merged


def _larger(one: Rates | None, other: Rates | None) -> Rates | None:
    if one is None or other is None:
        return one or other
    return Rates(
        max(one.copy_tb_per_s, other.copy_tb_per_s),
        max(one.matmul_tflop_per_s, other.matmul_tflop_per_s),
    )
