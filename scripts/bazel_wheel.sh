#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Builds the patched wheel for the target //:max_wheel and prints its path.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

if [ ! -x .venv/bin/mojo ]; then
    echo "error: ${PWD}/.venv is missing: run ./scripts/setup.sh first." >&2
    exit 1
fi
export HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
exec .venv/bin/python scripts/build_wheel.py
