# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The grouped MXFP4 matmul on the CPU: the executable specification.

Written to be read beside the format's definition and to be compared with, not
to be fast. The GPU kernel computes the same sums in another order.
"""

from std.memory import Layout, Pointer, alloc, bitcast, dealloc

from max.algorithm.functional import sync_parallelize

from .epilogue import Epilogue
from .mxfp4 import BLOCK_BYTES, BLOCK_ELEMENTS, decode_e2m1, decode_e8m0
from .panel_word import code_at, word_pairs
from .panels import PANEL_BLOCK_BYTES, PANEL_FEATURES, word_offset
from .problem import MatmulProblem, RowMap
from .subnormals import KeepSubnormals

comptime _SIMD_WIDTH = 16


def grouped_matmul_cpu[
    RowMapType: RowMap, EpilogueType: Epilogue, //, *, in_panels: Bool = False
](problem: MatmulProblem, rows: RowMapType, epilogue: EpilogueType) raises:
    """Multiplies each group's activation rows with its expert's matrix.

    Parameters:
        RowMapType: Finds the activation row of a routed row.
        EpilogueType: What happens to each pair of sums.
        in_panels: Whether the weights lie in panels.

    Args:
        problem: The operands and their sizes.
        rows: Maps a routed row to its activation row.
        epilogue: Receives the float32 sums of two neighbouring features.

    Raises:
        Error: If a group names an expert that the stack does not hold.
    """
    var groups = Int(problem.groups)
    var experts = Int(problem.experts)
    var features = Int(problem.features)
    for group in range(groups):
        var expert = Int(problem.expert_ids[unsafe_offset=group])
        if expert < -1 or expert >= experts:
            raise Error(
                t"mxfp4_moe: expert_ids[{group}] is {expert}, but the stack"
                t" holds experts 0 to {experts - 1}."
            )

    # One task a feature pair of one group.
    def feature_pair(task: Int) {imm}:
        var group = task // (features // 2) - 1
        with KeepSubnormals():
            _multiply_feature_pair[in_panels=in_panels](
                problem, rows, epilogue, group, 2 * (task % (features // 2))
            )

    sync_parallelize(feature_pair, (groups + 2) * (features // 2))


@inline(.never)
def _multiply_feature_pair[
    RowMapType: RowMap, EpilogueType: Epilogue, //, *, in_panels: Bool
](
    problem: MatmulProblem,
    rows: RowMapType,
    epilogue: EpilogueType,
    group: Int,
    feature: Int,
):
    var bounds = problem.group_bounds(group)
    if bounds[0] == bounds[1]:
        return
    var expert = problem.group_expert(group)
    if expert < 0:
        for row in range(bounds[0], bounds[1]):
            epilogue.store_empty(row, feature)
        return

    # Decode the pair's two weight rows once, then meet them with every
    # activation row of the group.
    var depth = Int(problem.depth)
    var weights = alloc(Layout[Float32](count=2 * depth))
    var decoded = weights.unsafe_ptr()
    var row_blocks = depth // BLOCK_ELEMENTS
    var first_row = expert * Int(problem.features) + feature
    for row in range(2):
        var target = decoded.unsafe_offset(row * depth)
        comptime if in_panels:
            _decode_panel_row(problem, first_row + row, row_blocks, target)
        else:
            _decode_row(problem, first_row + row, row_blocks, target)

    for row in range(bounds[0], bounds[1]):
        var activation = problem.activations.unsafe_offset(
            rows.source_row(row) * depth
        )
        var sum0 = SIMD[.float32, _SIMD_WIDTH](0)
        var sum1 = SIMD[.float32, _SIMD_WIDTH](0)
        for k in range(0, depth, _SIMD_WIDTH):
            var x = activation.unsafe_load[width=_SIMD_WIDTH](k).cast[
                .float32
            ]()
            sum0 += x * decoded.unsafe_load[width=_SIMD_WIDTH](k)
            sum1 += x * decoded.unsafe_load[width=_SIMD_WIDTH](depth + k)
        epilogue.store(
            expert, row, feature, sum0.reduce_add(), sum1.reduce_add()
        )
    dealloc(weights^)


def _decode_row(
    problem: MatmulProblem,
    row: Int,
    row_blocks: Int,
    decoded: Pointer[mut=True, Float32, _],
):
    for block in range(row_blocks):
        var index = row * row_blocks + block
        var scale = decode_e8m0(problem.scales[unsafe_offset=index])
        for byte in range(BLOCK_BYTES):
            var packed = problem.blocks[
                unsafe_offset=index * BLOCK_BYTES + byte
            ]
            var at = block * BLOCK_ELEMENTS + 2 * byte
            decoded[unsafe_offset=at] = decode_e2m1(packed & 15) * scale
            decoded[unsafe_offset=at + 1] = decode_e2m1(packed >> 4) * scale


def _decode_panel_row(
    problem: MatmulProblem,
    row: Int,
    row_blocks: Int,
    decoded: Pointer[mut=True, Float32, _],
):
    var panel, feature = divmod(row, PANEL_FEATURES)
    for block in range(row_blocks):
        var index = panel * row_blocks + block
        var scale = decode_e8m0(
            problem.scales[unsafe_offset=index * PANEL_FEATURES + feature]
        )
        for quarter in range(4):
            var pairs = word_pairs(
                bitcast[.uint32, 1](
                    problem.blocks.unsafe_load[width=4](
                        index * PANEL_BLOCK_BYTES
                        + word_offset(feature, quarter)
                    )
                )
            )
            # Of each eight elements, a quarter's word has two.
            comptime for unit in range(4):
                var at = block * BLOCK_ELEMENTS + 8 * unit + 2 * quarter
                decoded[unsafe_offset=at] = (
                    decode_e2m1(code_at(pairs[unit])) * scale
                )
                decoded[unsafe_offset=at + 1] = (
                    decode_e2m1(code_at(pairs[unit] >> 16)) * scale
                )
