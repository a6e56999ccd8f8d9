# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The chart of a results file: how much of the hardware's limit each implementation reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

LINES = (
    ("ours", "this repository", "#1b6ac9", "o"),
    ("triton_kernels", "vLLM, Triton", "#c9571b", "s"),
    ("marlin", "vLLM, Marlin", "#6b6b6b", "^"),
)
"""Implementation, label, colour and marker."""

MODELS = {128: "128 experts (gpt-oss-120b)", 32: "32 experts (gpt-oss-20b)"}


def draw_chart(content: dict[str, Any], path: Path) -> None:
    """Draws the content of a results file, as PNG or SVG by the path's suffix."""
    with plt.rc_context({"svg.hashsalt": "moe_layer", "font.size": 10}):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
        for panel, (experts, title) in zip(panels, MODELS.items(), strict=True):
            rows = [row for row in content["rows"] if row["experts"] == experts]
            for name, label, colour, marker in LINES:
                points = [
                    (row["tokens"], 100 * row["limit_us"] / us)
                    for row in rows
                    if (us := _time(row, name)) and row["limit_us"]
                ]
                if points:
                    tokens, shares = zip(*points, strict=True)
                    panel.plot(tokens, shares, color=colour, marker=marker, ms=4, label=label)
            panel.set_title(title)
            panel.set_xscale("log", base=2)
            ticks = [1, 4, 16, 64, 256, 1024, 8192]
            panel.set_xticks(ticks, [str(tick) for tick in ticks])
            panel.set_xlabel("tokens")
            panel.set_ylim(0, 100)
            panel.grid(alpha=0.3)
        panels[0].set_ylabel("% of the hardware's limit")
        panels[0].legend(frameon=False)
        figure.suptitle(f"One MoE layer, {content['device']}, {content['date']}", fontsize=11)
        # Without the time of drawing, the same results give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata=metadata)
        plt.close(figure)


def _time(row: dict[str, Any], name: str) -> float | None:
    us: float | None = row["ours_us"] if name == "ours" else row["peers_us"].get(name)
    return us
