# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A lane's sums of a layer of few rows, and the products that add to them.

The sums are registers that PTX declares by name and the compiler knows nothing
of, so that `ptxas` sees one loop of `wgmma` on the same registers.
"""

from std.sys import inlined_assembly

comptime _DEPTH = 16
# Elements along K of a `wgmma`.


@inline(.always)
def declare_sums[rows: Int]():
    """Declares the sums. Once in a kernel, at its beginning.

    Parameters:
        rows: The rows of a product.
    """
    comptime text = String(t".reg .f32 sum<{rows // 2}>;")
    inlined_assembly[
        StaticString(text), NoneType, constraints="", has_side_effect=True
    ]()


@inline(.always)
def multiply_step[rows: Int](weights: Int64, activations: Int64, add: Bool):
    """Starts adding the products of a step, 64 elements along K, as a group.

    Parameters:
        rows: The rows.

    Args:
        weights: Describes 64 features in shared memory.
        activations: Describes the rows, likewise.
        add: Whether there are sums to add to. The first step has none.
    """
    comptime text = _products(rows)
    inlined_assembly[
        StaticString(text),
        NoneType,
        constraints="l,l,r,~{memory}",
        has_side_effect=True,
    ](weights, activations, Int32(add))


@inline(.always)
def get_sum[octet: Int, i: Int]() -> Float32:
    """Returns one of the four sums that a lane has of eight rows.

    Parameters:
        octet: Which eight rows.
        i: 0 and 1 for neighbouring rows, 2 and 3 for the same of the
            feature eight below.

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


def _products(rows: Int) -> String:
    var sums = String("sum0")
    for i in range(1, rows // 2):
        sums += String(t", sum{i}")
    var text = String(
        "{ .reg .pred add; setp.ne.s32 add, $2, 0;"
        " .reg .b64 features<4>; .reg .b64 rows<4>;"
        " mov.b64 features0, $0; mov.b64 rows0, $1; "
    )
    # Descriptors count in units of 16 bytes.
    comptime units = _DEPTH * 2 // 16
    for quarter in range(1, 4):
        text += String(
            t"add.s64 features{quarter}, $0, {units * quarter};"
            t" add.s64 rows{quarter}, $1, {units * quarter}; "
        )
    text += "wgmma.fence.sync.aligned; "
    for quarter in range(4):
        if quarter == 1:
            text += "setp.eq.s32 add, 0, 0; "
        text += String(
            t"wgmma.mma_async.sync.aligned.m64n{rows}k16.f32.bf16.bf16"
            t" {{{sums}}}, features{quarter}, rows{quarter}, add, 1, 1, 0, 0; "
        )
    return text + "wgmma.commit_group.sync.aligned; }"
