#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Runs one folder of tests for Bazel: bazel_suite.sh FOLDER
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

if [ ! -x .venv/bin/mojo ]; then
    echo "error: ${PWD}/.venv is missing: run ./scripts/setup.sh first." >&2
    exit 1
fi
exec .venv/bin/python -m pytest "$1" --junitxml="${XML_OUTPUT_FILE}"
