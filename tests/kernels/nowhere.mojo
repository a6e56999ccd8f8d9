# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Operands that lie nowhere, for programs that only compile or measure."""

from mxfp4_moe.kernel_argument import TensorPointer
from mxfp4_moe.problem import MatmulProblem


def nowhere[T: AnyType]() -> TensorPointer[T]:
    # Not null, which a pointer may not be; nothing runs that would read it.
    return TensorPointer[T](unsafe_from_address=16)


def problem_nowhere(
    *, features: Int = 0, depth: Int = 0, groups: Int = 0
) -> MatmulProblem:
    return MatmulProblem(
        nowhere[BFloat16](),
        nowhere[UInt8](),
        nowhere[UInt8](),
        nowhere[UInt32](),
        nowhere[Int32](),
        rows=0,
        experts=0,
        features=features,
        depth=depth,
        groups=groups,
    )
