# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Takes the two peers out of vLLM's published wheel: to be measured, never to be committed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from moe_layer.errors import BenchmarkError

VLLM_VERSION = "0.33.0"
_MEMBERS = {
    "triton_kernels": "vllm/third_party/triton_kernels",
    "_moe_C_stable_libtorch.abi3.so": "vllm/_moe_C_stable_libtorch.abi3.so",
    "scalar_type.py": "vllm/scalar_type.py",
}


def fetch_peers(folder: Path, wheel: Path | None) -> dict[str, Path]:
    """Returns the peers' files and folders by name, unpacked in a folder.

    Args:
        folder: Where to.
        wheel: vLLM's wheel; without it pip downloads it.

    Raises:
        BenchmarkError: If pip cannot download the wheel, or it is another one.
    """
    wheel = wheel or _download(folder)
    if not wheel.name.startswith(f"vllm-{VLLM_VERSION}-"):
        raise BenchmarkError(f"{wheel} is no wheel of vLLM {VLLM_VERSION}.")
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if any(member == one or member.startswith(f"{one}/") for one in _MEMBERS.values()):
                    archive.extract(member, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise BenchmarkError(f"{wheel} cannot be read: {error}.") from error
    found = {name: folder / member for name, member in _MEMBERS.items()}
    missing = [name for name, path in found.items() if not path.exists()]
    if missing:
        raise BenchmarkError(f"{wheel} has no {', '.join(missing)}.")
    return found


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", f"--dest={folder}"]
    command.append(f"vllm=={VLLM_VERSION}")
    result = subprocess.run(command, text=True, capture_output=True, check=False)
    wheels = list(folder.glob("vllm-*.whl"))
    if result.returncode != 0 or not wheels:
        reason = result.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise BenchmarkError(f"pip cannot download vLLM {VLLM_VERSION}: {reason[0]}")
    return wheels[0]
