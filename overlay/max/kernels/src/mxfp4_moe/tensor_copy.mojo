# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Copies of boxes of a matrix by Hopper's copy engine.

A tensor map says where the matrix lies, how large a box is and how shared memory
swizzles it; the host makes it, and a kernel takes it as a grid constant. What lies
outside of the matrix arrives as zeros.
"""

from std.memory import Pointer
from std.sys import inlined_assembly, size_of
from std.utils import IndexList

from layout.tma_async import SharedMemBarrier
from max.gpu.host import DeviceBuffer, DeviceContext
from max.gpu.host.nvidia.tma import (
    TensorMapSwizzle,
    TMADescriptor,
    create_tma_descriptor,
)

from .bulk_copy import SharedPointer
from .kernel_argument import TensorPointer


def matrix_map[
    dtype: DType, swizzle: TensorMapSwizzle
](
    matrix: TensorPointer[Scalar[dtype]],
    rows: Int,
    columns: Int,
    box_rows: Int,
    box_columns: Int,
    ctx: DeviceContext,
) raises -> TMADescriptor:
    """Makes the tensor map of a matrix without gaps.

    Parameters:
        dtype: The type of its elements.
        swizzle: How boxes lie in shared memory.

    Args:
        matrix: Where it starts in device memory, at a multiple of 16 bytes.
        rows: Its rows.
        columns: Elements of a row, whose bytes are a multiple of 16.
        box_rows: Rows of a box.
        box_columns: Elements of a box's row.
        ctx: The device.

    Returns:
        The tensor map.

    Raises:
        Error: If the driver refuses it.
    """
    var buffer = DeviceBuffer[dtype](ctx, matrix, rows * columns, owning=False)
    return create_tma_descriptor[dtype, 2, swizzle](
        buffer,
        IndexList[2](rows, columns),
        IndexList[2](columns, 1),
        IndexList[2](box_rows, box_columns),
    )


@inline(.always)
def tensor_copy(
    target: SharedPointer[UInt8],
    map: Pointer[TMADescriptor, _],
    row: Int32,
    column: Int32,
    barrier: SharedPointer[SharedMemBarrier],
):
    """Starts copying a box.

    Args:
        target: Where to, at a multiple of 128 bytes.
        map: The matrix.
        row: The box's first row.
        column: Its first element of each row.
        barrier: What counts its bytes, and was told to expect them.
    """
    inlined_assembly[
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile"
            ".mbarrier::complete_tx::bytes [$0], [$1, {$2, $3}], [$4];"
        ),
        NoneType,
        constraints="r,l,r,r,r,~{memory}",
        has_side_effect=True,
    ](
        UInt32(Int(target)),
        UInt64(Int(map)),
        column,
        row,
        UInt32(Int(barrier)),
    )
