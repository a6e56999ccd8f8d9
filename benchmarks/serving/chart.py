# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The chart of a results file: how much of the hardware's limit decoding reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

from serving.report import share_of_limit
from serving.results import BATCHES, MODELS

BARS = (
    (True, "with device graphs", "#1b6ac9"),
    (False, "without", "#9dbfe6"),
)
"""Whether steps are captured, label and colour."""

_WIDTH = 0.4


def draw_chart(content: dict[str, Any], path: Path) -> None:
    """Draws the content of a results file, as PNG or SVG by the path's suffix.

    A bar is a decode rate in percent of its limit, with tokens/s written on it. Servers
    that were not measured have no bars, and leave no room for them.
    """
    measured = [row for row in content["rows"] if share_of_limit(row) is not None]
    shown = [bar for bar in BARS if any(row["device_graphs"] is bar[0] for row in measured)]
    with plt.rc_context({"svg.hashsalt": "serving", "font.size": 10}):
        figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
        for panel, model in zip(panels, reversed(MODELS), strict=True):
            for number, (device_graphs, label, colour) in enumerate(shown):
                rows = [
                    row
                    for row in measured
                    if row["model"] == model and row["device_graphs"] is device_graphs
                ]
                offset = (number - (len(shown) - 1) / 2) * _WIDTH
                places = [BATCHES.index(row["batch"]) + offset for row in rows]
                heights = [share_of_limit(row) for row in rows]
                bars = panel.bar(places, heights, _WIDTH, color=colour, label=label)
                rates = [f"{row['decode_tokens_per_s']:.0f}" for row in rows]
                panel.bar_label(bars, rates, fontsize=8)
            panel.set_title(f"gpt-oss-{model}")
            panel.set_xticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
            panel.set_xlabel("sequences")
            # Room for the rate on a bar that reaches the limit, and for the legend.
            panel.set_ylim(0, 125)
            panel.set_yticks(range(0, 101, 20))
            panel.grid(axis="y", alpha=0.3)
        panels[0].set_ylabel("% of the hardware's limit; tokens/s on the bars")
        panels[0].legend(frameon=False)
        figure.suptitle(f"Decode, {content['device']}, {content['date']}", fontsize=11)
        # Without the time of drawing, the same results give the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata=metadata)
        plt.close(figure)
