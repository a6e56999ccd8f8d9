# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Plain structs that a kernel takes by value."""

from std.builtin.device_passable import DevicePassable, DeviceTypeEncoder
from std.memory import Pointer

comptime TensorPointer[T: AnyType] = Pointer[T, MutUntrackedOrigin]
"""Where a tensor begins. The graph keeps the tensor alive.

Parameters:
    T: The type of its elements.
"""


trait KernelArgument(DevicePassable, TrivialRegisterPassable):
    """A struct of pointers and fixed-width numbers, the same on host and GPU.
    """

    comptime NAME: StaticString
    """A word for kernel names and type errors."""

    comptime device_type: AnyType = Self
    """Device code sees the struct as it is."""

    def _to_device_type(
        self, mut encoder: Some[DeviceTypeEncoder], target: MutOpaquePointer[_]
    ):
        """Copies the struct into a kernel's arguments.

        Args:
            encoder: Writes device arguments.
            target: Where to write.
        """
        encoder.encode(self, target)

    @staticmethod
    def get_type_name() -> String:
        """Returns the struct's name.

        Returns:
            `NAME`.
        """
        return String(Self.NAME)
