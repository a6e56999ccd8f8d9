#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Tells Bazel the state of the sources that it does not track itself, so that //:max_wheel
# is built anew when one of them changes.
set -euo pipefail

files=(LICENSE overlay patches pyproject.toml requirements.lock scripts)
digest="$(git ls-files --cached --others --exclude-standard -z -- "${files[@]}" |
    xargs -0 sha256sum 2>/dev/null | sha256sum)"
echo "STABLE_SOURCES ${digest%% *}"

# dist/ is not Bazel's own output: a wheel that somebody removed has to be made again.
if compgen -G 'dist/max-*.whl' >/dev/null; then
    echo "STABLE_DIST present"
else
    echo "STABLE_DIST missing since $(date +%s)"
fi
