# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The documents: what they link to is there, and the README's times are the stored ones."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from moe_layer.report import best_peer

README_LINES = 110
"""About two screens, with the charts as one line each."""

RESULTS = "benchmarks/results/moe_layer_h200.json"
SERVING = "benchmarks/results/serve_h200.json"


def tracked(repository: Path, *patterns: str) -> list[Path]:
    """Files of the repository that git tracks or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    listing = subprocess.run(command, cwd=repository, text=True, capture_output=True, check=True)
    return sorted(repository / line for line in listing.stdout.splitlines())


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_links_lead_somewhere(repository: Path) -> None:
    documents = tracked(repository, "*.md")
    assert repository / "README.md" in documents
    broken = []
    for document in documents:
        text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = document.parent / path if path else document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{document.name}: {link}")
    assert not broken


def test_commands_name_files_that_exist(repository: Path) -> None:
    missing: list[str] = []
    for document in tracked(repository, "*.md"):
        for name in re.findall(
            r"(?:\./)?((?:scripts|benchmarks)/\w+\.(?:py|sh))", document.read_text()
        ):
            if not (repository / name).is_file():
                missing.append(f"{document.name}: {name}")
    assert not missing


def test_every_document_is_linked(repository: Path) -> None:
    documents = tracked(repository, "*.md")
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in documents
        for link in re.findall(r"\]\(([^)\s:]+)\)", document.read_text())
    }
    assert {document.resolve() for document in documents} - linked <= {repository / "README.md"}


def test_readme_is_two_screens(repository: Path) -> None:
    assert len((repository / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize("experts", [128, 32])
def test_readme_has_the_times_that_were_stored(repository: Path, experts: int) -> None:
    lines = (repository / "README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    tokens = next(row[1:] for row in cells if row[0] == "tokens")
    number = next(i for i, row in enumerate(cells) if row[0].startswith(f"{experts} experts"))
    ours, peers = cells[number], cells[number + 1]
    assert peers[0] == "faster peer"
    rows = {
        str(row["tokens"]): row
        for row in json.loads((repository / RESULTS).read_text())["rows"]
        if row["experts"] == experts
    }
    assert ours[1:] == [f"{rows[count]['ours_us']:.0f}" for count in tokens]
    assert peers[1:] == [f"{best_peer(rows[count]):.0f}" for count in tokens]


@pytest.mark.parametrize("model", ["120b", "20b"])
def test_readme_has_the_rates_that_were_stored(repository: Path, model: str) -> None:
    lines = (repository / "README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    batches = next(row[1:] for row in cells if row[0] == "sequences")
    stored = {
        str(row["batch"]): (row["decode_tokens_per_s"], row["limit_tokens_per_s"])
        for row in json.loads((repository / SERVING).read_text())["rows"]
        if row["model"] == model and row["device_graphs"]
    }
    (rates,) = (row[1:] for row in cells if row[0] == f"gpt-oss-{model}")
    assert rates == [
        f"{rate:.0f} ({100 * rate / limit:.0f} %)"
        for rate, limit in (stored[batch] for batch in batches)
    ]


@pytest.mark.parametrize("file", [RESULTS, SERVING])
def test_readme_names_the_device_and_date_of_its_times(repository: Path, file: str) -> None:
    results = json.loads((repository / file).read_text())
    text = " ".join((repository / "README.md").read_text().split())
    assert f"{results['device']}, {results['date']}" in text


def test_readme_names_the_peers(repository: Path) -> None:
    results = json.loads((repository / RESULTS).read_text())
    text = " ".join((repository / "README.md").read_text().split())
    assert f"vLLM {results['versions']['vllm']}" in text
