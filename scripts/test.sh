#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Runs the tests: every suite with Bazel where it is installed, else with pytest alone. Tests
# marked gpu are skipped, with the reason, where there is no Hopper GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/setup.sh
if ! command -v bazel >/dev/null; then
    echo "Bazel is not installed (Debian and Ubuntu: bazel-bootstrap): running pytest alone"
    exec .venv/bin/python -m pytest
fi

failed=0
bazel test //... || failed=$?
.venv/bin/python scripts/summarize_tests.py bazel-testlogs || failed=$?
exit "${failed}"
