#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Writes the lock files from pyproject.toml, for CPython 3.10 to 3.14 on Linux x86-64.
# Needs the virtual environment that scripts/setup.sh makes. Arguments go to uv; to renew
# every version: scripts/lock.sh --upgrade
set -euo pipefail
cd "$(dirname "$0")/.."

export UV_PYTHON_DOWNLOADS=never
pin="$(sed -n 's/^dependencies = \["modular==\([^"]*\)".*/\1/p' pyproject.toml)"

lock() {
    local output="$1"
    shift
    echo "Locking ${output}"
    .venv/bin/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes \
        --no-emit-index-url --custom-compile-command scripts/lock.sh \
        --output-file "${output}" "$@" >/dev/null
}

lock requirements.lock pyproject.toml --group dev \
    --constraint <(echo "max-shmem-libs==${pin}") "$@"
lock requirements-reference.lock --group reference --constraint requirements.lock "$@"
lock requirements-bootstrap.lock --group bootstrap "$@"
