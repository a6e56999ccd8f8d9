# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Results files, their tables and their chart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from serving_results import sample

from moe_layer.errors import BenchmarkError
from moe_layer.results import write_results
from serve import main
from serving.results import BATCHES, MODELS, Model, Results, merge_results, read_results

SCHEMA = {
    "model",
    "batch",
    "device_graphs",
    "decode_tokens_per_s",
    "limit_tokens_per_s",
    "ttft_ms",
    "peak_device_gib",
    "load_s",
    "copy_s",
    "compile_s",
    "new_tokens",
}


def written(folder: Path, model: Model) -> str:
    """The path of a results file of one model."""
    path = folder / f"{model}.json"
    write_results(sample(model), path)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """What two calls measured."""
    return [written(tmp_path, model) for model in MODELS]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = sample("20b")
    results.failures.append("20b with device graphs, 32k: no memory")
    write_results(results, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == results


def test_the_schema(files: list[str]) -> None:
    content = json.loads(Path(files[0]).read_text())
    assert {"device", "date", "versions"} < content.keys()
    assert all(row.keys() == SCHEMA for row in content["rows"])
    assert content["rows"][0]["ttft_ms"] == {"1k": 30.0, "8k": 200.0}


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_merges_prints_and_draws(
    files: list[str],
    suffix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    merged, chart = tmp_path / "merged.json", tmp_path / f"chart{suffix}"
    options = ["--output", str(merged), "--chart", str(chart)]
    assert main(["report", *files, *options]) == 0
    results = read_results(merged)
    assert len(results.rows) == len(MODELS) * 2 * len(BATCHES)
    assert len(results.runs) == len(MODELS) * 2
    assert chart.stat().st_size > 0
    cells = [cell.strip() for cell in capsys.readouterr().out.replace("│", "\n").splitlines()]
    row = ["64", "on", "6400", "50", "30.0", "200.0", "70.0", "40.0", "30.0", "1.5"]
    assert cells[cells.index("64") :][: len(row)] == row


def test_the_same_results_draw_the_same_chart(files: list[str], tmp_path: Path) -> None:
    charts = [tmp_path / f"{name}.svg" for name in ("one", "two")]
    for chart in charts:
        main(["report", *files, "--chart", str(chart)])
    assert charts[0].read_bytes() == charts[1].read_bytes()


def test_missing_figures_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = sample("20b")
    results.rows[1].decode_tokens_per_s = None
    for row in results.rows[: len(BATCHES)]:
        del row.ttft_ms["8k"]
    write_results(results, tmp_path / "20b.json")
    assert main(["report", str(tmp_path / "20b.json")]) == 1
    missing = capsys.readouterr().err
    assert "missing: decode_tokens_per_s of 20b with device graphs, batch 8\n" in missing
    assert "missing: time to first token of 20b with device graphs at 8k\n" in missing
    assert "missing: load_s of 120b without device graphs, batch 1, 8, 32, 64\n" in missing
    assert "missing: load_s of 20b" not in missing


def test_limits_are_merged_to_the_faster_copy(tmp_path: Path) -> None:
    slow, fast = sample("20b"), sample("120b")
    slow.copy_tb_per_s, fast.copy_tb_per_s = 4.0, 4.4
    paths = [tmp_path / "slow.json", tmp_path / "fast.json"]
    for results, path in zip((slow, fast), paths, strict=True):
        write_results(results, path)
    for order in (paths, reversed(paths)):
        merged = merge_results(list(order))
        assert merged.copy_tb_per_s == 4.4
        limits = {row.model: row.limit_tokens_per_s for row in merged.rows if row.batch == 1}
        assert limits == {"20b": 220.0, "120b": 200.0}


@pytest.mark.parametrize(
    ("what", "value"), [("device", "NVIDIA H100"), ("date", "2026-11-24"), ("versions", {})]
)
def test_other_conditions_do_not_merge(files: list[str], what: str, value: object) -> None:
    path = Path(files[1])
    path.write_text(json.dumps({**json.loads(path.read_text()), what: value}))
    with pytest.raises(BenchmarkError, match=f"is of {what}"):
        merge_results([Path(files[0]), path])


def test_the_same_row_twice_does_not_merge(files: list[str]) -> None:
    with pytest.raises(BenchmarkError, match="there are two rows of"):
        merge_results([Path(files[0])] * 2)


@pytest.mark.parametrize("content", ["", "{}", '{"rows": 3}', "[]"])
def test_something_else_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(BenchmarkError, match="is no results file"):
        read_results(path)


def test_nothing_measured_is_written_as_null(tmp_path: Path) -> None:
    results = sample("20b")
    results.rows[0].peak_device_gib = None
    write_results(results, tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["rows"][0]["peak_device_gib"] is None
    assert isinstance(read_results(tmp_path / "results.json"), Results)
