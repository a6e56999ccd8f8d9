# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A lane's sums of the prefill matmul, and the products that add to them.

The sums are registers that PTX declares by name and the compiler knows nothing
of. So one loop has a `wgmma` for every number of rows, where MAX's takes powers
of two and a value for each; and `ptxas` sets the registers of A aside once.
"""

from std.sys import inlined_assembly
from std.utils import StaticTuple

from max.gpu.compute.mma import WGMMADescriptor

from .epilogue import Operands

comptime ROW_UNIT = 8
"""Rows of a product are a multiple of this: the least that `wgmma` has."""


@inline(.always)
def declare_sums[most_rows: Int]():
    """Declares the sums. Once in a kernel, at its beginning.

    Parameters:
        most_rows: The most rows of a product.
    """
    comptime text = String(t".reg .f32 sum<{most_rows // 2}>;")
    inlined_assembly[
        StaticString(text), NoneType, constraints="", has_side_effect=True
    ]()


@inline(.always)
def start_sums[most_rows: Int](of_features: Operands):
    """Begins the sums of a tile.

    Parameters:
        most_rows: The most rows of a product.

    Args:
        of_features: What the sums of the lane's two features begin with.
    """
    comptime text = _beginnings(most_rows // 2)
    inlined_assembly[
        StaticString(text),
        NoneType,
        constraints="f,f,~{memory}",
        has_side_effect=True,
    ](of_features[0], of_features[1])


@inline(.always)
def multiply_step[
    first_unit: Int, units: Int
](
    row_units: Int32,
    weights: StaticTuple[SIMD[.uint32, 4], 4],
    rows: WGMMADescriptor[.bfloat16],
):
    """Starts adding the products of a step, 64 elements along K, as a group.

    Parameters:
        first_unit: The fewest rows there may be, in units of `ROW_UNIT`.
        units: How many numbers of rows there may be.

    Args:
        row_units: The rows, in units of `ROW_UNIT`: the same in all lanes.
        weights: The lane's weights, of 16 elements each.
        rows: The rows, in shared memory.
    """
    comptime if units == 1:
        _multiply_step[first_unit * ROW_UNIT](weights, rows)
    else:
        comptime less = units // 2
        if row_units < Int32(first_unit + less):
            multiply_step[first_unit, less](row_units, weights, rows)
        else:
            multiply_step[first_unit + less, units - less](
                row_units, weights, rows
            )


@inline(.always)
def get_sum[octet: Int, i: Int]() -> Float32:
    """Returns one of the four sums that a lane has of eight rows.

    Parameters:
        octet: Which eight rows.
        i: 0 and 1 for neighbouring rows, 2 and 3 for the same of the
            features eight below.

    Returns:
        The sum.
    """
    comptime text = String(t"mov.f32 $0, sum{octet * 4 + i};")
    return inlined_assembly[
        StaticString(text),
        Float32,
        constraints="=f,~{memory}",
        has_side_effect=True,
    ]()


@inline(.always)
def _multiply_step[
    count: Int
](weights: StaticTuple[SIMD[.uint32, 4], 4], rows: WGMMADescriptor[.bfloat16],):
    # The group ends here and not where the numbers of rows meet again: there,
    # ptxas would add an empty one.
    comptime text = _products(count)
    inlined_assembly[
        StaticString(text),
        NoneType,
        constraints="l,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,r,~{memory}",
        has_side_effect=True,
    ](
        rows.desc,
        weights[0][0],
        weights[0][1],
        weights[0][2],
        weights[0][3],
        weights[1][0],
        weights[1][1],
        weights[1][2],
        weights[1][3],
        weights[2][0],
        weights[2][1],
        weights[2][2],
        weights[2][3],
        weights[3][0],
        weights[3][1],
        weights[3][2],
        weights[3][3],
    )


def _beginnings(sums: Int) -> String:
    var text = String()
    for i in range(sums):
        text += String(t"mov.f32 sum{i}, ${i // 2 % 2}; ")
    return text


def _products(count: Int) -> String:
    var sums = String("sum0")
    for i in range(1, count // 2):
        sums += String(t", sum{i}")
    var text = String(
        "{ .reg .pred add; setp.eq.u32 add, 0, 0; .reg .b64 rows<4>;"
        " mov.b64 rows0, $0; "
    )
    # 16 elements are 32 bytes, in units of 16.
    for quarter in range(1, 4):
        text += String(t"add.s64 rows{quarter}, $0, {2 * quarter}; ")
    text += "wgmma.fence.sync.aligned; "
    for quarter in range(4):
        var first = 1 + 4 * quarter
        text += String(
            t"wgmma.mma_async.sync.aligned.m64n{count}k16.f32.bf16.bf16"
            t" {{{sums}}}, {{${first}, ${first + 1}, ${first + 2},"
            t" ${first + 3}}}, rows{quarter}, add, 1, 1, 0; "
        )
    return text + "wgmma.commit_group.sync.aligned; }"
