# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The operands of a whole gpt-oss expert layer, behind the router."""

from .kernel_argument import KernelArgument, TensorPointer
from .problem import MatmulProblem
from .routing import RoutingTables


@fieldwise_init
struct ExpertStack(KernelArgument):
    """One projection of all experts."""

    comptime NAME = StaticString("expert_stack")
    """The word for these operands."""

    var blocks: TensorPointer[UInt8]
    """Packed E2M1 `[experts, N, K / 2]`."""
    var scales: TensorPointer[UInt8]
    """E8M0 `[experts, N, K / 32]`."""
    var bias: TensorPointer[BFloat16]
    """BF16 `[experts, N]`."""


@fieldwise_init
struct LayerTables(KernelArgument):
    """What the router chose, and the same sorted by expert."""

    comptime NAME = StaticString("layer_tables")
    """The word for these tables."""

    var token_expert_order: TensorPointer[UInt32]
    """The slot `token * top_k + choice` of each routed row: `[rows]`."""
    var starts: TensorPointer[UInt32]
    """The first routed row of each group, and the end of the last:
    `[groups + 1]`."""
    var expert_ids: TensorPointer[Int32]
    """The expert of each group, or -1: `[groups]`."""
    var choices: TensorPointer[Int32]
    """The expert of each slot, or -1: `[rows]`."""
    var router_weights: TensorPointer[Float32]
    """The router's weight of each slot: `[rows]`."""

    @inline(.always)
    def routing(self) -> RoutingTables:
        """Takes what sorting fills and reads.

        Returns:
            All but the weights.
        """
        return RoutingTables(
            self.token_expert_order, self.starts, self.expert_ids, self.choices
        )


struct LayerProblem(KernelArgument):
    """Tokens, their experts, and all experts' weights."""

    comptime NAME = StaticString("layer")
    """The word for these operands."""

    var hidden: TensorPointer[BFloat16]
    """BF16 `[tokens, features]`."""
    var logits: TensorPointer[BFloat16]
    """BF16 `[tokens, experts]`, the router's. For few tokens they can stand for the
    tables."""
    var tables: LayerTables
    """What the router chose."""
    var gate_up: ExpertStack
    """N is twice the width, gate and up rows alternating; K is `features`."""
    var down: ExpertStack
    """N is `features`; K is the width."""
    var rows: Int32
    """Routed rows: tokens times choices."""
    var experts: Int32
    """Experts in the stacks."""
    var groups: Int32
    """Expert groups."""
    var features: Int32
    """Features of a token, the hidden size."""
    var width: Int32
    """Features between the two projections."""

    @inline(.always)
    def __init__(
        out self,
        hidden: TensorPointer[BFloat16],
        logits: TensorPointer[BFloat16],
        tables: LayerTables,
        gate_up: ExpertStack,
        down: ExpertStack,
        *,
        rows: Int,
        experts: Int,
        groups: Int,
        features: Int,
        width: Int,
    ):
        """Names the operands and sizes of a layer.

        Args:
            hidden: BF16 `[tokens, features]`.
            logits: BF16 `[tokens, experts]`.
            tables: What the router chose.
            gate_up: The first projection.
            down: The second.
            rows: Routed rows.
            experts: Experts in the stacks.
            groups: Expert groups.
            features: Features of a token.
            width: Features between the projections.
        """
        self.hidden = hidden
        self.logits = logits
        self.tables = tables
        self.gate_up = gate_up
        self.down = down
        self.rows = Int32(rows)
        self.experts = Int32(experts)
        self.groups = Int32(groups)
        self.features = Int32(features)
        self.width = Int32(width)

    @inline(.always)
    def gate_up_matmul(self) -> MatmulProblem:
        """Takes the first projection by itself.

        Returns:
            Its matmul, whose activations stand behind a row map.
        """
        return self._matmul(
            self.gate_up, self.hidden, 2 * Int(self.width), Int(self.features)
        )

    @inline(.always)
    def down_matmul(self, gated: TensorPointer[BFloat16]) -> MatmulProblem:
        """Takes the second projection by itself.

        Args:
            gated: BF16 `[rows, width]`, in expert order.

        Returns:
            Its matmul.
        """
        return self._matmul(
            self.down, gated, Int(self.features), Int(self.width)
        )

    @inline(.always)
    def _matmul(
        self,
        stack: ExpertStack,
        activations: TensorPointer[BFloat16],
        features: Int,
        depth: Int,
    ) -> MatmulProblem:
        return MatmulProblem(
            activations,
            stack.blocks,
            stack.scales,
            self.tables.starts,
            self.tables.expert_ids,
            rows=Int(self.rows),
            experts=Int(self.experts),
            features=features,
            depth=depth,
            groups=Int(self.groups),
        )
