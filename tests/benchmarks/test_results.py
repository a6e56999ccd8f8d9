# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""From the programs' output to a results file, and several files to one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sample_results import RATES, sample_results

from moe_layer.errors import BenchmarkError
from moe_layer.results import (
    Measurement,
    Results,
    Table,
    merge_results,
    parse_measurements,
    read_results,
    write_results,
)

LINE = '{"experts": 32, "tokens": 2, "active_experts": 7.5, "us": 33.25}'


def stored(folder: Path, name: str, results: Results) -> Path:
    """Writes results and returns the file."""
    path = folder / f"{name}.json"
    write_results(results, path)
    return path


def test_output_is_parsed_and_other_lines_passed_over() -> None:
    output = f"warming up\n{LINE}\n"
    assert parse_measurements("ours", output) == [Measurement(32, 2, 7.5, 33.25)]


@pytest.mark.parametrize("output", ["", "no GPU\n", '{"experts": 32}\n', '{"experts": 3'])
def test_output_without_measurements_is_named(output: str) -> None:
    with pytest.raises(BenchmarkError, match="marlin, 32 experts printed no measurement"):
        parse_measurements("marlin, 32 experts", output)


def test_different_routings_are_refused() -> None:
    table = Table()
    table.add("ours", [Measurement(32, 2, 7.5, 33.25)])
    with pytest.raises(BenchmarkError, match="their routings differ"):
        table.add("marlin", [Measurement(32, 2, 7.25, 40.0)])


def test_rows_have_the_schema(tmp_path: Path) -> None:
    content = json.loads(stored(tmp_path, "all", sample_results()).read_text())
    assert set(content) == {
        *("device", "date", "versions", "timing", "copy_tb_per_s", "matmul_tflop_per_s"),
        *("rows", "matmul_rows"),
    }
    assert set(content["versions"]) == {"max", "mojo", "driver", "torch", "triton", "vllm"}
    assert len(content["rows"]) == len(content["matmul_rows"]) == 28
    assert content["rows"][0] == {
        "experts": 128,
        "tokens": 1,
        "active_experts": 4.0,
        "ours_us": 21.0,
        "peers_us": {"triton_kernels": 42.0, "marlin": 63.0},
        "limit_us": 12.442,
    }
    assert content["matmul_rows"][-1] == {
        "experts": 32,
        "tokens": 8192,
        "active_experts": 32.0,
        "ours_us": 4106.0,
        "limit_us": 1438.047,
    }


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    results = replace(sample_results(), failures=["marlin, 32 experts exited with 1: no"])
    assert read_results(stored(tmp_path, "all", results)) == results


def test_parts_merge_to_the_whole(tmp_path: Path) -> None:
    ours = sample_results(peers=False)
    peers = sample_results(ours=False)
    peers.rates = replace(RATES, copy_tb_per_s=4.5, matmul_tflop_per_s=700)
    peers.versions = {"driver": "580.1", "vllm": "0.33.0"}
    paths = [stored(tmp_path, "ours", ours), stored(tmp_path, "peers", peers)]
    merged = merge_results(paths)
    whole = sample_results()
    assert merged.layer == whole.layer
    assert merged.matmul == whole.matmul
    assert merged.rates == replace(RATES, copy_tb_per_s=4.5)
    assert merged.versions["max"] == "26.7.0"
    assert merged.versions["vllm"] == "0.33.0"
    assert merged.missing() == []


def test_what_is_missing_is_named() -> None:
    results = sample_results(peers=False)
    del results.matmul.us["ours"][32, 4]
    tokens = ", ".join(str(1 << power) for power in range(14))
    assert results.missing() == [
        f"triton_kernels, 128 experts: {tokens} tokens",
        f"triton_kernels, 32 experts: {tokens} tokens",
        f"marlin, 128 experts: {tokens} tokens",
        f"marlin, 32 experts: {tokens} tokens",
        "plain matmul of ours, 32 experts: 4 tokens",
    ]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(sample_results(ours=False), device="NVIDIA H100"), "device NVIDIA H100"),
        (replace(sample_results(ours=False), date="2026-11-24"), "date 2026-11-24"),
        (replace(sample_results(ours=False), versions={"driver": "1"}), "driver 1"),
        (sample_results(peers=False), "two times of ours for 128 experts and 1 tokens"),
    ],
    ids=["device", "date", "driver", "twice"],
)
def test_files_that_do_not_belong_together(tmp_path: Path, other: Results, what: str) -> None:
    paths = [
        stored(tmp_path, "ours", sample_results(peers=False)),
        stored(tmp_path, "other", other),
    ]
    with pytest.raises(BenchmarkError, match=what) as error:
        merge_results(paths)
    assert str(paths[1]) in str(error.value)


@pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
def test_no_results_file(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BenchmarkError, match=r"results\.json (cannot be read|is no results file)"):
        read_results(path)
