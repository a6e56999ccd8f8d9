#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Checks formats, types and style. Needs the environment that scripts/setup.sh makes;
# BUILD files are checked where npm or buildifier is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

bin="${PWD}/.venv/bin"
if [ ! -x "${bin}/mojo" ]; then
    echo "error: ${PWD}/.venv is missing: run ./scripts/setup.sh first." >&2
    exit 1
fi

echo "ruff"
"${bin}/ruff" check .
"${bin}/ruff" format --check .

echo "mypy"
"${bin}/mypy"
"${bin}/mypy" tests/conftest.py
gpt_oss_tests=overlay/max/tests/integration/architectures/gpt-oss/mxfp4
suites="$(git ls-files 'tests/*/*.py' 'overlay/max/tests/*.py' | xargs -n1 dirname | sort -u)"
for suite in ${suites}; do
    # Modules of a suite import each other by bare name, those of tests/reference by package.
    if [ ! -e "${suite}/__init__.py" ]; then
        export MYPYPATH="${suite}:${gpt_oss_tests}"
    fi
    "${bin}/mypy" "${suite}"
    unset MYPYPATH
done
modules=()
for file in $(cd overlay/max/python && git ls-files -- '*.py'); do
    module="${file%.py}"
    modules+=(-m "$(tr / . <<<"${module%/__init__}")")
done
# The installed copies, since only beside MAX's own modules can ours be told from them.
"${bin}/mypy" "${modules[@]}"

echo "mojo format"
mapfile -d '' mojo_files < <(git ls-files -z '*.mojo')
copy="$(mktemp -d)"
trap 'rm -rf "${copy}"' EXIT
cp --parents "${mojo_files[@]}" "${copy}"
(cd "${copy}" && "${bin}/mojo" format --quiet "${mojo_files[@]}")
for file in "${mojo_files[@]}"; do
    diff -u --label "${file}" "${file}" --label "${file}, formatted" "${copy}/${file}"
done

echo "mojo doc"
# As upstream's docs test runs it; of a path that ends in / it reads nothing.
for package in overlay/max/kernels/src/*; do
    "${bin}/mojo" doc --diagnose-missing-doc-strings --Werror -o /dev/null "${package}"
done

./scripts/buildifier.sh --mode=check --lint=warn --warnings=-native-sh-test

echo "pre-commit"
"${bin}/pre-commit" validate-config .pre-commit-config.yaml
