# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The operands of one grouped MXFP4 matmul, and how routed rows find theirs."""


from .kernel_argument import KernelArgument, TensorPointer


struct MatmulProblem(KernelArgument):
    """A grouped matmul over packed expert stacks.

    Routed rows `[starts[g], starts[g + 1])` form group `g` and meet the matrix
    of expert `expert_ids[g]`. The rows before `starts[0]` and from
    `starts[groups]` on form two more groups, -1 and `groups`, that belong to
    no expert, as do groups whose id is -1: their output is zero.
    """

    comptime NAME = StaticString("problem")
    """The word for these operands."""

    var activations: TensorPointer[BFloat16]
    """BF16 `[rows, depth]` (or fewer rows, behind a row map)."""
    var blocks: TensorPointer[UInt8]
    """Packed E2M1 `[experts, features, depth / 2]`."""
    var scales: TensorPointer[UInt8]
    """E8M0 `[experts, features, depth / 32]`."""
    var starts: TensorPointer[UInt32]
    """The first routed row of each group, and the end of the last: `[groups + 1]`."""
    var expert_ids: TensorPointer[Int32]
    """The expert of each group: `[groups]`."""
    var rows: Int32
    """Routed rows."""
    var experts: Int32
    """Experts in the stack."""
    var features: Int32
    """Output features of an expert, N."""
    var depth: Int32
    """Length of the sum, K."""
    var groups: Int32
    """Expert groups."""

    @inline(.always)
    def __init__(
        out self,
        activations: TensorPointer[BFloat16],
        blocks: TensorPointer[UInt8],
        scales: TensorPointer[UInt8],
        starts: TensorPointer[UInt32],
        expert_ids: TensorPointer[Int32],
        *,
        rows: Int,
        experts: Int,
        features: Int,
        depth: Int,
        groups: Int,
    ):
        """Names the operands and sizes of a matmul.

        Args:
            activations: BF16 `[rows, depth]`, or fewer rows behind a row map.
            blocks: Packed E2M1 `[experts, features, depth / 2]`.
            scales: E8M0 `[experts, features, depth / 32]`.
            starts: `[groups + 1]`, the first routed row of each group and the
                end of the last.
            expert_ids: `[groups]`, the expert of each group, or -1.
            rows: Routed rows.
            experts: Experts in the stack.
            features: Output features of an expert, N.
            depth: Length of the sum, K.
            groups: Expert groups.
        """
        self.activations = activations
        self.blocks = blocks
        self.scales = scales
        self.starts = starts
        self.expert_ids = expert_ids
        self.rows = Int32(rows)
        self.experts = Int32(experts)
        self.features = Int32(features)
        self.depth = Int32(depth)
        self.groups = Int32(groups)

    @inline(.always)
    def group_bounds(self, group: Int) -> Tuple[Int, Int]:
        """Returns the first routed row of a group and the one after its last.

        Args:
            group: From -1 to `groups`, both included.

        Returns:
            The bounds, clamped to the rows there are.
        """
        var first = 0
        if group >= 0:
            first = min(Int(self.starts[unsafe_offset=group]), Int(self.rows))
        var end = Int(self.rows)
        if group < Int(self.groups):
            end = min(Int(self.starts[unsafe_offset=group + 1]), Int(self.rows))
        return (first, max(first, end))

    @inline(.always)
    def group_expert(self, group: Int) -> Int:
        """Returns the expert of a group.

        Args:
            group: From -1 to `groups`, both included.

        Returns:
            The expert, or -1 where the group has none.
        """
        if group < 0 or group >= Int(self.groups):
            return -1
        return Int(self.expert_ids[unsafe_offset=group])


trait RowMap(KernelArgument):
    """Finds the activation row that a routed row multiplies."""

    comptime GATHERS: Bool
    """Whether that is not the row itself."""

    def source_row(self, row: Int) -> Int:
        """Returns the activation row of a routed row.

        Args:
            row: The routed row.

        Returns:
            The activation row.
        """
        ...


@fieldwise_init
struct SameRow(RowMap):
    """The activations are already in routed order."""

    comptime NAME = StaticString("same_row")
    """The word for this map."""

    comptime GATHERS = False
    """It is the row itself."""

    @inline(.always)
    def source_row(self, row: Int) -> Int:
        """Returns the row itself.

        Args:
            row: The routed row.

        Returns:
            The same row.
        """
        return row


@fieldwise_init
struct GatherRow[top_k: Int](RowMap):
    """Gathers: routed rows are slots `token * top_k + choice` in expert order.

    Parameters:
        top_k: Choices a token.
    """

    comptime NAME = StaticString("gather")
    """The word for this map."""

    comptime GATHERS = True
    """It is the row of a token."""

    var token_expert_order: TensorPointer[UInt32]
    """The slot of each routed row."""

    @inline(.always)
    def source_row(self, row: Int) -> Int:
        """Returns the token that the routed row's slot belongs to.

        Args:
            row: The routed row.

        Returns:
            The token, which is its row of the activations.
        """
        return Int(self.token_expert_order[unsafe_offset=row]) // Self.top_k
