# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Prints what the host tells the prefill kernel of its shared memory.

`print_prefill_layout FEATURES DEPTH GROUPS` prints a line for tiles of few rows and
one for those of many: steps, feature tiles, where the stages start, how many there
are for the largest tiles and for 48 rows, whether the kernel takes the problem, and
the registers of a thread that multiplies.
"""

from std.sys import argv

from mxfp4_moe.prefill_layout import PrefillLayout, PrefillShape
from mxfp4_moe.problem import MatmulProblem

from nowhere import problem_nowhere


def print_layout[shape: PrefillShape](problem: MatmulProblem):
    var layout = PrefillLayout[shape](problem)
    print(
        layout.steps,
        layout.feature_tiles,
        layout.first_stage(),
        layout.stages(Int32(shape.row_units())),
        layout.stages(6),
        Int(PrefillLayout[shape].fits(problem)),
        shape.consumer_registers(),
    )


def main() raises:
    var problem = problem_nowhere(
        features=Int(argv()[1]), depth=Int(argv()[2]), groups=Int(argv()[3])
    )
    print_layout[PrefillShape.FEW_ROWS](problem)
    print_layout[PrefillShape.MANY_ROWS](problem)
