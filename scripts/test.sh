#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Runs the tests: every suite with Bazel where it is installed, else with pytest alone. Tests
# marked gpu are skipped, with the reason, where there is no Hopper GPU.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/setup.sh
failed=0
if command -v bazel >/dev/null; then
    bazel test //... || failed=$?
    logs=bazel-testlogs
else
    echo "Bazel is not installed (Debian and Ubuntu: bazel-bootstrap): running pytest alone"
    logs="$(mktemp -d)"
    trap 'rm -rf "${logs}"' EXIT
    # Each in a process of its own: MAX, once loaded, changes what child processes inherit.
    for suite in overlay/max/tests tests/*/; do
        if compgen -G "${suite%/}/test_*.py" >/dev/null || [ "${suite}" = overlay/max/tests ]; then
            .venv/bin/python -m pytest "${suite}" --junitxml="${logs}/${suite%/}/test.xml" || failed=$?
        fi
    done
fi
.venv/bin/python scripts/summarize_tests.py "${logs}" || failed=$?
exit "${failed}"
