# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The tables and the chart made from results files."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_results import sample_results

from measure import main
from moe_layer.results import read_results, write_results

SIGNATURES = {".svg": b"<?xml", ".png": b"\x89PNG"}


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Ours and the peers, measured by two calls."""
    write_results(sample_results(peers=False), tmp_path / "ours.json")
    write_results(sample_results(ours=False), tmp_path / "peers.json")
    return [str(tmp_path / "ours.json"), str(tmp_path / "peers.json")]


@pytest.mark.parametrize("suffix", SIGNATURES)
def test_merges_prints_and_draws(
    files: list[str],
    suffix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    merged, chart = tmp_path / "merged.json", tmp_path / f"chart{suffix}"
    options = ["--output", str(merged), "--chart", str(chart)]
    assert main(["report", *files, *options]) == 0
    assert read_results(merged) == sample_results()
    assert chart.read_bytes().startswith(SIGNATURES[suffix])
    cells = [cell.strip() for cell in capsys.readouterr().out.replace("│", "\n").splitlines()]
    row = ["1", "4.0", "21.0", "42.0", "63.0", "12.4", "1.69", "2.00"]
    assert cells[cells.index("1") :][: len(row)] == row


def test_the_same_results_draw_the_same_chart(files: list[str], tmp_path: Path) -> None:
    charts = [tmp_path / f"{name}.svg" for name in ("one", "two")]
    for chart in charts:
        main(["report", *files, "--chart", str(chart)])
    assert charts[0].read_bytes() == charts[1].read_bytes()


def test_missing_times_are_named(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", files[0]]) == 1
    assert "missing: marlin, 128 experts: 1, 2, 4" in capsys.readouterr().err
