# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The graph operations of this package.

Shapes use T for tokens, k for choices a token, R = T * k for routed rows, E
for experts, A for groups, N and K for the features and the depth of an
expert's matrix, H for the hidden size and I for the expert width. Shapes and
dtypes are checked where the graph is built, in `max.nn.mxfp4_moe`.
"""

import extensibility as compiler
from extensibility import InputTensor, ManagedTensorSlice, OutputTensor
from max.gpu.host import DeviceContext
from max.gpu.host.info import is_cpu

from .combine import combine_cpu, combine_gpu
from .dispatch import grouped_matmul
from .epilogue import BiasSwiGLU, BiasWeightScatter, StoreBF16
from .kernel_argument import TensorPointer
from .layer import LayerBuffers, expert_layer
from .layer_problem import ExpertStack, LayerProblem, LayerTables
from .panels import PanelStack, to_panels_cpu, to_panels_gpu
from .problem import GatherRow, MatmulProblem, SameRow
from .routing import RoutingTables, route_cpu, route_gpu
from .select import RouterScores, select_cpu, select_gpu
from .slice_sums import PART_ROWS


@inline(.always)
def _pointer(tensor: ManagedTensorSlice) -> TensorPointer[Scalar[tensor.dtype]]:
    return tensor.unsafe_ptr().unsafe_origin_cast[MutUntrackedOrigin]()


@inline(.always)
def _problem(
    activations: InputTensor[dtype=.bfloat16, rank=2, ...],
    blocks: InputTensor[dtype=.uint8, rank=3, ...],
    scales: InputTensor[dtype=.uint8, rank=3, ...],
    starts: InputTensor[dtype=.uint32, rank=1, ...],
    expert_ids: InputTensor[dtype=.int32, rank=1, ...],
    rows: Int,
) -> MatmulProblem:
    return MatmulProblem(
        _pointer(activations),
        _pointer(blocks),
        _pointer(scales),
        _pointer(starts),
        _pointer(expert_ids),
        rows=rows,
        experts=blocks.dim_size(0),
        features=blocks.dim_size(1),
        depth=2 * blocks.dim_size(2),
        groups=expert_ids.dim_size(0),
    )


@compiler.register("mxfp4_moe_route")
struct Route:
    """Sorts the router's choices by expert."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        token_expert_order: OutputTensor[dtype=.uint32, rank=1, ...],
        expert_starts: OutputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: OutputTensor[dtype=.int32, rank=1, ...],
        topk_ids: InputTensor[dtype=.int32, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Fills the routing tables.

        Parameters:
            target: The device kind.

        Args:
            token_expert_order: `[R]`, the slot of each routed row.
            expert_starts: `[E + 1]`, where each expert's rows start.
            expert_ids: `[E]`, 0 to E - 1.
            topk_ids: `[T, k]`, the expert each slot chose.
            ctx: The device.

        Raises:
            Error: If a launch fails, or on the CPU an expert does not exist.
        """
        var tables = RoutingTables(
            _pointer(token_expert_order),
            _pointer(expert_starts),
            _pointer(expert_ids),
            _pointer(topk_ids),
        )
        var slots = topk_ids.size()
        var experts = expert_ids.dim_size(0)
        comptime if is_cpu[target]():
            route_cpu(tables, slots, experts)
        else:
            route_gpu(tables, slots, experts, ctx)


@compiler.register("mxfp4_moe_select")
struct Select:
    """Selects each token's experts, weights them, and sorts them."""

    @staticmethod
    def execute[
        target: StaticString, top_k: Int
    ](
        router_weights: OutputTensor[dtype=.float32, rank=2, ...],
        topk_ids: OutputTensor[dtype=.int32, rank=2, ...],
        token_expert_order: OutputTensor[dtype=.uint32, rank=1, ...],
        expert_starts: OutputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: OutputTensor[dtype=.int32, rank=1, ...],
        logits: InputTensor[dtype=.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Takes the largest logits, and fills the routing tables.

        Parameters:
            target: The device kind.
            top_k: Choices a token.

        Args:
            router_weights: `[T, k]`, the softmax over the chosen logits.
            topk_ids: `[T, k]`, the experts, that of the largest logit first.
            token_expert_order: `[R]`, the slot of each routed row.
            expert_starts: `[E + 1]`, where each expert's rows start.
            expert_ids: `[E]`, 0 to E - 1.
            logits: `[T, E]`.
            ctx: The device.

        Raises:
            Error: If a launch fails.
        """
        var scores = RouterScores(
            _pointer(router_weights),
            _pointer(logits),
            Int32(logits.dim_size(0)),
            Int32(logits.dim_size(1)),
        )
        var tables = RoutingTables(
            _pointer(token_expert_order),
            _pointer(expert_starts),
            _pointer(expert_ids),
            _pointer(topk_ids),
        )
        comptime if is_cpu[target]():
            select_cpu[top_k](scores, tables)
        else:
            select_gpu[top_k](scores, tables, ctx)


@compiler.register("mxfp4_moe_to_panels")
struct ToPanels:
    """Brings an expert stack into the order that Hopper's kernels read."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        panel_blocks: OutputTensor[dtype=.uint8, rank=3, ...],
        panel_scales: OutputTensor[dtype=.uint8, rank=3, ...],
        blocks: InputTensor[dtype=.uint8, rank=3, ...],
        scales: InputTensor[dtype=.uint8, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        """Reorders the bytes of each 16 neighbouring rows: see `panels.mojo`.

        Parameters:
            target: The device kind.

        Args:
            panel_blocks: `[E, N, K / 2]`, N a multiple of 16.
            panel_scales: `[E, N, K / 32]`.
            blocks: `[E, N, K / 2]`.
            scales: `[E, N, K / 32]`.
            ctx: The device.

        Raises:
            Error: If a launch fails.
        """
        var stack = PanelStack(
            _pointer(panel_blocks),
            _pointer(panel_scales),
            _pointer(blocks),
            _pointer(scales),
            rows=blocks.dim_size(0) * blocks.dim_size(1),
            depth=2 * blocks.dim_size(2),
        )
        comptime if is_cpu[target]():
            to_panels_cpu(stack)
        else:
            to_panels_gpu(stack, ctx)


@compiler.register("mxfp4_moe_matmul")
struct Matmul:
    """Multiplies each group's rows with its expert's packed matrix."""

    @staticmethod
    def execute[
        target: StaticString, in_panels: Bool
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        activations: InputTensor[dtype=.bfloat16, rank=2, ...],
        blocks: InputTensor[dtype=.uint8, rank=3, ...],
        scales: InputTensor[dtype=.uint8, rank=3, ...],
        expert_starts: InputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: InputTensor[dtype=.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `output[r] = activations[r] @ dequantize(expert of r).T`.

        Parameters:
            target: The device kind.
            in_panels: Whether the weights lie in panels.

        Args:
            output: `[R, N]`; zero where a row belongs to no expert.
            activations: `[R, K]`.
            blocks: `[E, N, K / 2]`.
            scales: `[E, N, K / 32]`.
            expert_starts: `[A + 1]`.
            expert_ids: `[A]`, -1 for a group of no expert.
            ctx: The device.

        Raises:
            Error: If a launch fails, or on the CPU an expert does not exist.
        """
        var problem = _problem(
            activations,
            blocks,
            scales,
            expert_starts,
            expert_ids,
            output.dim_size(0),
        )
        grouped_matmul[target, in_panels=in_panels](
            problem,
            SameRow(),
            StoreBF16(_pointer(output), problem.features),
            ctx,
        )


@compiler.register("mxfp4_moe_gate_up_swiglu")
struct GateUpSwiGLU:
    """Gathers, multiplies with the gate/up stack, adds bias, activates."""

    @staticmethod
    def execute[
        target: StaticString,
        top_k: Int,
        alpha: Float32,
        limit: Float32,
        in_panels: Bool,
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        gathered: OutputTensor[dtype=.bfloat16, rank=2, ...],
        hidden: InputTensor[dtype=.bfloat16, rank=2, ...],
        token_expert_order: InputTensor[dtype=.uint32, rank=1, ...],
        blocks: InputTensor[dtype=.uint8, rank=3, ...],
        scales: InputTensor[dtype=.uint8, rank=3, ...],
        bias: InputTensor[dtype=.bfloat16, rank=2, ...],
        expert_starts: InputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: InputTensor[dtype=.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes the gated activations of every routed row.

        Parameters:
            target: The device kind.
            top_k: Choices a token.
            alpha: The sigmoid's slope.
            limit: The clamp of gate and up.
            in_panels: Whether the weights lie in panels.

        Args:
            output: `[R, I]`, in expert order.
            gathered: `[R, H]`, room for the rows in that order.
            hidden: `[T, H]`.
            token_expert_order: `[R]`, the slot of each routed row.
            blocks: `[E, 2 * I, H / 2]`, gate and up rows alternating.
            scales: `[E, 2 * I, H / 32]`.
            bias: `[E, 2 * I]`.
            expert_starts: `[A + 1]`.
            expert_ids: `[A]`, -1 for a group of no expert.
            ctx: The device.

        Raises:
            Error: If a launch fails, or on the CPU an expert does not exist.
        """
        var problem = _problem(
            hidden,
            blocks,
            scales,
            expert_starts,
            expert_ids,
            output.dim_size(0),
        )
        grouped_matmul[target, in_panels=in_panels](
            problem,
            GatherRow[top_k](_pointer(token_expert_order)),
            BiasSwiGLU[alpha, limit](
                _pointer(output), _pointer(bias), problem.features
            ),
            ctx,
            _pointer(gathered),
        )


@compiler.register("mxfp4_moe_down")
struct Down:
    """Multiplies with the down stack, adds bias, weights, restores order."""

    @staticmethod
    def execute[
        target: StaticString, in_panels: Bool
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        gated: InputTensor[dtype=.bfloat16, rank=2, ...],
        token_expert_order: InputTensor[dtype=.uint32, rank=1, ...],
        blocks: InputTensor[dtype=.uint8, rank=3, ...],
        scales: InputTensor[dtype=.uint8, rank=3, ...],
        bias: InputTensor[dtype=.bfloat16, rank=2, ...],
        router_weights: InputTensor[dtype=.float32, rank=2, ...],
        expert_starts: InputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: InputTensor[dtype=.int32, rank=1, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes each slot's weighted expert output.

        Parameters:
            target: The device kind.
            in_panels: Whether the weights lie in panels.

        Args:
            output: `[R, H]`, in slot order `token * k + choice`.
            gated: `[R, I]`, in expert order.
            token_expert_order: `[R]`, the slot of each routed row.
            blocks: `[E, H, I / 2]`.
            scales: `[E, H, I / 32]`.
            bias: `[E, H]`.
            router_weights: `[T, k]`.
            expert_starts: `[A + 1]`.
            expert_ids: `[A]`, -1 for a group of no expert.
            ctx: The device.

        Raises:
            Error: If a launch fails, or on the CPU an expert does not exist.
        """
        var problem = _problem(
            gated,
            blocks,
            scales,
            expert_starts,
            expert_ids,
            output.dim_size(0),
        )
        # Whatever made the gated rows read the tables, so they are complete.
        grouped_matmul[target, in_panels=in_panels, tables_ready=True](
            problem,
            SameRow(),
            BiasWeightScatter(
                _pointer(output),
                _pointer(bias),
                _pointer(router_weights),
                _pointer(token_expert_order),
                problem.features,
            ),
            ctx,
        )


@compiler.register("mxfp4_moe_combine")
struct Combine:
    """Sums the weighted results of a token's experts."""

    @staticmethod
    def execute[
        target: StaticString, top_k: Int
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        weighted: InputTensor[dtype=.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Computes `output[t] = sum over c of weighted[t * top_k + c]`.

        Parameters:
            target: The device kind.
            top_k: Choices a token.

        Args:
            output: `[T, H]`.
            weighted: `[T * top_k, H]`, in slot order.
            ctx: The device.

        Raises:
            Error: If a launch fails.
        """
        var tokens = output.dim_size(0)
        var features = output.dim_size(1)
        comptime if is_cpu[target]():
            combine_cpu[top_k](
                _pointer(output), _pointer(weighted), tokens, features
            )
        else:
            combine_gpu[top_k](
                _pointer(output),
                _pointer(weighted),
                tokens,
                features,
                ctx,
            )


@compiler.register("mxfp4_moe_experts")
struct Experts:
    """Everything behind the router's matmul: selects, multiplies, and sums."""

    @staticmethod
    def execute[
        target: StaticString,
        top_k: Int,
        alpha: Float32,
        limit: Float32,
        in_panels: Bool,
    ](
        output: OutputTensor[dtype=.bfloat16, rank=2, ...],
        router_weights: OutputTensor[dtype=.float32, rank=2, ...],
        topk_ids: OutputTensor[dtype=.int32, rank=2, ...],
        token_expert_order: OutputTensor[dtype=.uint32, rank=1, ...],
        expert_starts: OutputTensor[dtype=.uint32, rank=1, ...],
        expert_ids: OutputTensor[dtype=.int32, rank=1, ...],
        gated: OutputTensor[dtype=.bfloat16, rank=2, ...],
        weighted: OutputTensor[dtype=.bfloat16, rank=2, ...],
        part_sums: OutputTensor[dtype=.float32, rank=2, ...],
        hidden: InputTensor[dtype=.bfloat16, rank=2, ...],
        logits: InputTensor[dtype=.bfloat16, rank=2, ...],
        gate_up_blocks: InputTensor[dtype=.uint8, rank=3, ...],
        gate_up_scales: InputTensor[dtype=.uint8, rank=3, ...],
        gate_up_bias: InputTensor[dtype=.bfloat16, rank=2, ...],
        down_blocks: InputTensor[dtype=.uint8, rank=3, ...],
        down_scales: InputTensor[dtype=.uint8, rank=3, ...],
        down_bias: InputTensor[dtype=.bfloat16, rank=2, ...],
        ctx: DeviceContext,
    ) raises:
        """Does what `select`, `gate_up_swiglu`, `down` and `combine` do.

        All results but the first are room for what lies between, since an op in a
        captured graph must not allocate.

        Parameters:
            target: The device kind.
            top_k: Choices a token.
            alpha: The sigmoid's slope.
            limit: The clamp of gate and up.
            in_panels: Whether the weights lie in panels.

        Args:
            output: `[T, H]`.
            router_weights: `[T, k]`.
            topk_ids: `[T, k]`.
            token_expert_order: `[R]`.
            expert_starts: `[E + 1]`.
            expert_ids: `[E]`.
            gated: `[R, I]`.
            weighted: `[R, H]`.
            part_sums: `[PART_ROWS, H]`.
            hidden: `[T, H]`.
            logits: `[T, E]`.
            gate_up_blocks: `[E, 2 * I, H / 2]`, gate and up rows alternating.
            gate_up_scales: `[E, 2 * I, H / 32]`.
            gate_up_bias: `[E, 2 * I]`.
            down_blocks: `[E, H, I / 2]`.
            down_scales: `[E, H, I / 32]`.
            down_bias: `[E, H]`.
            ctx: The device.

        Raises:
            Error: If `part_sums` is too small, or a launch fails.
        """
        if part_sums.dim_size(0) < PART_ROWS:
            raise Error(
                t"mxfp4_moe_experts: part_sums has"
                t" {part_sums.dim_size(0)} rows; it must have {PART_ROWS}."
            )
        var layer = LayerProblem(
            _pointer(hidden),
            _pointer(logits),
            LayerTables(
                _pointer(token_expert_order),
                _pointer(expert_starts),
                _pointer(expert_ids),
                _pointer(topk_ids),
                _pointer(router_weights),
            ),
            ExpertStack(
                _pointer(gate_up_blocks),
                _pointer(gate_up_scales),
                _pointer(gate_up_bias),
            ),
            ExpertStack(
                _pointer(down_blocks),
                _pointer(down_scales),
                _pointer(down_bias),
            ),
            rows=topk_ids.size(),
            experts=gate_up_blocks.dim_size(0),
            groups=expert_ids.dim_size(0),
            features=hidden.dim_size(1),
            width=gated.dim_size(1),
        )
        expert_layer[
            target,
            top_k,
            alpha,
            limit,
            in_panels=in_panels,
            from_logits=True,
        ](
            _pointer(output),
            LayerBuffers(
                _pointer(gated), _pointer(weighted), _pointer(part_sums)
            ),
            layer,
            ctx,
        )


@compiler.register("mxfp4_moe_scale_bytes")
struct ScaleBytes:
    """Gives E8M0 scales as the bytes that the other operations take."""

    @staticmethod
    def execute[
        target: StaticString
    ](
        output: OutputTensor[dtype=.uint8, rank=3, ...],
        scales: InputTensor[dtype=.float8_e8m0fnu, rank=3, ...],
        ctx: DeviceContext,
    ) raises:
        """Copies the bytes.

        Parameters:
            target: The device kind.

        Args:
            output: `[E, N, K / 32]`.
            scales: `[E, N, K / 32]`.
            ctx: The device.

        Raises:
            Error: If the copy cannot be enqueued.
        """
        var source = _pointer(scales).unsafe_bitcast[UInt8]()
        comptime if is_cpu[target]():
            var bytes = _pointer(output)
            for i in range(scales.size()):
                bytes[unsafe_offset=i] = source[unsafe_offset=i]
        else:
            ctx.enqueue_copy(_pointer(output), source, scales.size())
