# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Prints what the host tells the prefill kernel of its shared memory.

`print_prefill_layout FEATURES DEPTH GROUPS` prints steps, feature tiles, where
the stages start, how many there are for tiles of 192 and of 48 rows, and whether
the kernel takes the problem.
"""

from std.sys import argv

from mxfp4_moe.prefill_layout import PrefillLayout

from nowhere import problem_nowhere


def main() raises:
    var problem = problem_nowhere(
        features=Int(argv()[1]), depth=Int(argv()[2]), groups=Int(argv()[3])
    )
    var layout = PrefillLayout(problem)
    print(
        layout.steps,
        layout.feature_tiles,
        layout.first_stage(),
        layout.stages(24),
        layout.stages(6),
        Int(PrefillLayout.fits(problem)),
    )
