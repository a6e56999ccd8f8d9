#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Runs buildifier with the given options on every BUILD, WORKSPACE and .bzl file: the one that is
# installed or, where npm is, the one that third_party/buildifier names. Without either it says so.
set -euo pipefail
cd "$(dirname "$0")/.."

buildifier="$(command -v buildifier || true)"
if [ -z "${buildifier}" ] && command -v npm >/dev/null; then
    npm ci --silent --prefix third_party/buildifier
    buildifier="third_party/buildifier/node_modules/.bin/buildifier"
fi
if [ -z "${buildifier}" ]; then
    echo "buildifier: not run, since neither it nor npm is installed"
    exit
fi
echo "buildifier"
mapfile -d '' files < <(git ls-files -z '*BUILD.bazel' '*WORKSPACE' '*.bzl')
"${buildifier}" "$@" "${files[@]}"
