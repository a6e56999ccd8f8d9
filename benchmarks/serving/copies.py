# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Times copies with MAX's driver; prints one JSON object.

usage: python -m serving.copies CHECKPOINT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

from max.driver import Accelerator, Buffer, Device
from max.dtype import DType

DEVICE_COPY_BYTES = 4 << 30
REPEATS = 11
CALLS = 10


def main(folder: Path) -> None:
    """Print how long the checkpoint's shards take to the device, and the rate within it."""
    device = Accelerator()
    files = sorted(folder.glob("*.safetensors"))
    report = {
        "copy_tb_per_s": round(device_copy_rate(device, DEVICE_COPY_BYTES) / 1e12, 4),
        "copy_s": round(copy_seconds(files, device), 3),
        "checkpoint_bytes": sum(file.stat().st_size for file in files),
    }
    print(json.dumps(report), flush=True)


def copy_seconds(files: list[Path], device: Device) -> float:
    """Seconds that the files take to the device, where all of them stay.

    They are memory-mapped and copied from there, one call a file; nothing is pinned.
    """
    start = time.monotonic()
    copies = [
        Buffer.mmap(file, DType.uint8, (file.stat().st_size,), mode="r").to(device)
        for file in files
    ]
    device.synchronize()
    seconds = time.monotonic() - start
    del copies
    return seconds


def device_copy_rate(device: Device, size: int) -> float:
    """Bytes a second, read and written, of a copy of ``size`` bytes within the device."""
    source = Buffer.zeros((size,), DType.uint8, device=device)
    target = Buffer.zeros((size,), DType.uint8, device=device)
    times = []
    for _ in range(REPEATS):
        device.synchronize()
        start = time.monotonic()
        for _ in range(CALLS):
            target.inplace_copy_from(source)
        device.synchronize()
        times.append((time.monotonic() - start) / CALLS)
    return 2 * size / median(times)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
