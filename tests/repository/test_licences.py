# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Licence texts and headers."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from test_documents import tracked

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IDENTIFIER = "Apache-2.0 WITH LLVM-exception"
HEADER = (
    f"# SPDX-License-Identifier: {IDENTIFIER}\n# Copyright (c) 2026, the max-gpt-oss authors.\n"
)
SUFFIXES = {".py", ".mojo", ".sh", ".bzl", ".bazel", ".toml", ".yaml", ".yml"}
NAMES = {".bazelrc", "WORKSPACE", "run"}
# Upstream's BUILD files have no header.
WITHOUT = re.compile(r"overlay/.*/BUILD\.bazel")


def test_every_source_has_the_header(repository: Path) -> None:
    checked, missing = 0, []
    for file in tracked(repository):
        name = file.relative_to(repository).as_posix()
        if (file.suffix not in SUFFIXES and file.name not in NAMES) or WITHOUT.fullmatch(name):
            continue
        checked += 1
        if not re.sub(r"\A#!.*\n", "", file.read_text()).startswith(HEADER):
            missing.append(name)
    assert checked > 100
    assert not missing


def test_licence_is_apache_with_the_llvm_exceptions(repository: Path) -> None:
    text = " ".join((repository / "LICENSE").read_text().split())
    for words in (
        "Apache License Version 2.0, January 2004",
        "END OF TERMS AND CONDITIONS",
        "LLVM Exceptions to the Apache 2.0 License",
        "As an exception, if, as a result of your compiling your source code",
    ):
        assert words in text, words


def test_project_names_the_licence(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["license"] == IDENTIFIER


def test_nothing_of_ours_carries_another_copyright(repository: Path) -> None:
    foreign = []
    for file in tracked(repository, "*.py", "*.mojo", "*.sh", "*.patch", "*.bazel", "*.bzl"):
        for line in file.read_text().splitlines():
            if re.search(r"Copyright \(c\)|©", line) and "max-gpt-oss authors" not in line:
                foreign.append(f"{file.name}: {line}")
    assert not foreign
