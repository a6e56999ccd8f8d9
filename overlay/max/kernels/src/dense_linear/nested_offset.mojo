# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""A tensor engine that upstream's SM90 grouped matmul compiles with.

The kernel moves its output tensor by an offset that is a `Coord` of its own,
and `TileTensor` puts that into another. `DefaultEngine` adds up the components
of an offset by their values, and a `Coord` has none: the kernel does not
elaborate (`Coord is not a value type`). The engine of the output tensor is the
caller's choice, and this one takes nested offsets. What it makes of a moved
tensor is `DefaultEngine`'s, so everything behind the offset is as upstream
has it.
"""

from std.memory import Pointer

from layout import Coord, CoordLike, DefaultEngine, TensorEngine, TensorLayout


@inline(.always)
def _elements(offset: Coord) -> Int:
    var total = 0
    comptime for i in range(offset.rank):
        comptime if offset.element_types[i].is_tuple:
            total += _elements(offset[i].tuple())
        else:
            total += Int(offset[i].value())
    return total


struct NestedOffset(TensorEngine):
    """`DefaultEngine` in all but one: offsets may be nested."""

    comptime element_size: Int = 1
    """Elements that are loaded and stored together."""

    comptime _BASE_TYPE_NAME: StaticString = "NestedOffset"

    comptime StorageType[
        mut: Bool,
        //,
        dtype: DType,
        origin: Origin[mut=mut],
        address_space: AddressSpace,
    ]: TrivialRegisterPassable = Pointer[
        Scalar[dtype], origin, address_space=address_space
    ]
    """A pointer to the first element.

    Parameters:
        mut: Whether the elements can change.
        dtype: The type of the elements.
        origin: What keeps them alive.
        address_space: The memory that they are in.
    """

    comptime OffsetResultType[
        offset_types: TypeList[Trait=CoordLike, ...],
    ]: TensorEngine = DefaultEngine[]
    """The engine of a moved tensor.

    Parameters:
        offset_types: The types of the offset's components.
    """

    @staticmethod
    @inline(.always)
    def unsafe_ptr[
        mut: Bool,
        dtype: DType,
        origin: Origin[mut=mut],
        address_space: AddressSpace,
        //,
    ](
        storage: Self.StorageType[dtype, origin, address_space],
    ) -> Pointer[
        Scalar[dtype], origin, address_space=address_space
    ]:
        """Returns the pointer.

        Parameters:
            mut: Whether the elements can change.
            dtype: The type of the elements.
            origin: What keeps them alive.
            address_space: The memory that they are in.

        Args:
            storage: The tensor's storage.

        Returns:
            The pointer to the first element.
        """
        return storage

    @staticmethod
    @inline(.always)
    def unsafe_cast[
        to_mut: Bool,
        //,
        to_dtype: DType,
        to_origin: Origin[mut=to_mut],
        to_address_space: AddressSpace,
    ](storage: Self.StorageType[...]) -> Self.StorageType[
        to_dtype, to_origin, to_address_space
    ]:
        """Takes the storage for one of another type.

        Parameters:
            to_mut: Whether the elements can change.
            to_dtype: The type of the elements.
            to_origin: What keeps them alive.
            to_address_space: The memory that they are in.

        Args:
            storage: The tensor's storage.

        Returns:
            The same storage under the other type.
        """
        return DefaultEngine[].unsafe_cast[
            to_dtype, to_origin, to_address_space
        ](storage)

    @staticmethod
    @inline(.always)
    def offset[
        offset_mut: Bool,
        offset_types: TypeList[Trait=CoordLike, ...],
        //,
        offset_dtype: DType,
        offset_origin: Origin[mut=offset_mut],
        offset_address_space: AddressSpace,
    ](
        var storage: Self.StorageType[
            offset_dtype, offset_origin, offset_address_space
        ],
        var offset_coord: Coord[*offset_types],
    ) -> Self.OffsetResultType[offset_types].StorageType[
        offset_dtype, offset_origin, offset_address_space
    ]:
        """Moves the storage by the sum of all components of an offset.

        Parameters:
            offset_mut: Whether the elements can change.
            offset_types: The types of the offset's components.
            offset_dtype: The type of the elements.
            offset_origin: What keeps them alive.
            offset_address_space: The memory that they are in.

        Args:
            storage: The tensor's storage.
            offset_coord: The offset, in elements.

        Returns:
            The storage from that element on.
        """
        return storage.unsafe_offset(_elements(offset_coord))

    @staticmethod
    @inline(.always)
    def copy_from[
        SelfLayoutType: TensorLayout,
        self_origin: MutOrigin,
        self_address_space: AddressSpace,
        OtherLayoutType: TensorLayout,
        other_mut: Bool,
        other_origin: Origin[mut=other_mut],
        other_address_space: AddressSpace,
        //,
        dst_dtype: DType,
        src_dtype: DType,
        OtherEngine: TensorEngine,
    ](
        storage: Tuple[
            Self.StorageType[dst_dtype, self_origin, self_address_space],
            SelfLayoutType,
        ],
        other: Tuple[
            OtherEngine.StorageType[
                src_dtype, other_origin, other_address_space
            ],
            OtherLayoutType,
        ],
    ):
        """Copies another tensor's elements.

        Parameters:
            SelfLayoutType: The layout of the tensor that changes.
            self_origin: What keeps its elements alive.
            self_address_space: The memory that they are in.
            OtherLayoutType: The layout of the other tensor.
            other_mut: Whether the other's elements can change.
            other_origin: What keeps them alive.
            other_address_space: The memory that they are in.
            dst_dtype: The type of the elements that change.
            src_dtype: The type of the other's elements.
            OtherEngine: The other tensor's engine.

        Args:
            storage: The tensor that changes.
            other: The other tensor.
        """
        DefaultEngine[].copy_from[dst_dtype, src_dtype, OtherEngine](
            storage, other
        )
