#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Formats every file, and then runs scripts/lint.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

bin="${PWD}/.venv/bin"
if [ ! -x "${bin}/mojo" ]; then
    echo "error: ${PWD}/.venv is missing: run ./scripts/setup.sh first." >&2
    exit 1
fi
"${bin}/ruff" check --fix --exit-zero --quiet .
"${bin}/ruff" format --quiet .
git ls-files -z '*.mojo' | xargs -0 "${bin}/mojo" format --quiet
./scripts/buildifier.sh --mode=fix --lint=off
exec ./scripts/lint.sh
