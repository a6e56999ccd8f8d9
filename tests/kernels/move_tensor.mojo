# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Moves a tensor by an offset, flat or, with `-D NESTED`, a `Coord` of its own.

The second is what upstream's SM90 grouped matmul does with its output.
"""

from std.sys import is_defined

from layout import Coord, Idx, TileTensor, row_major


def main():
    var elements = List[BFloat16](length=20, fill=0)
    elements[10] = 1
    var tensor = TileTensor(elements.unsafe_ptr(), row_major(4, Idx[5]))
    var row = len(elements) // 10
    comptime if is_defined["NESTED"]():
        print(tensor._offset_storage(Coord(row * 5))[])
    else:
        print(tensor._offset_storage(row * 5)[])
