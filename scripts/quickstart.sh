#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# From a fresh clone to the main job: builds and installs the patched max wheel in .venv, then
# generates text on a Hopper GPU or, without one, checks what can be checked on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/setup.sh
PYTHONPATH=tests exec .venv/bin/python scripts/main_job.py
