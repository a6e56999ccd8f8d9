#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
#
# Makes the virtual environment .venv from the lock file, builds the patched max wheel into
# dist/ and installs it there. Run again, it does what changed. PYTHON names another python3.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
if ! "${python}" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))'; then
    echo "error: ${python} must be Python 3.10 to 3.14; name another one in PYTHON." >&2
    exit 1
fi
if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "error: MAX and its lock file are for Linux x86-64, not $(uname -sm)." >&2
    exit 1
fi
if ! command -v git >/dev/null; then
    echo "error: git is missing: it applies the patches." >&2
    exit 1
fi
if [ ! -x .venv/bin/pip ] && ! "${python}" -m venv --clear .venv; then
    echo "error: ${python} cannot make .venv: on Debian and Ubuntu, install python3-venv." >&2
    exit 1
fi

echo "Installing the locked packages into .venv"
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes \
    --requirement requirements-bootstrap.lock
export UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV="${PWD}/.venv"
# An installed patched max has a version that the lock accepts, and no hash that it knows.
.venv/bin/uv pip install --quiet --reinstall-package max --require-hashes \
    --requirement requirements.lock

echo "Building the patched max wheel"
wheel="$(.venv/bin/python scripts/build_wheel.py)"
.venv/bin/uv pip install --quiet --no-deps --reinstall "${wheel}"
.venv/bin/pip check --disable-pip-version-check
echo "Installed ${wheel}"
