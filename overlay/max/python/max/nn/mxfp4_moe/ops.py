# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Graph ops for mixture-of-experts layers whose weights stay packed as MXFP4.

Dimensions in the docstrings: ``T`` tokens, ``k`` experts per token, ``R = T * k``
routed rows, ``E`` experts, ``A`` expert groups, ``N`` output and ``K`` input
features of one expert, ``H`` hidden size, ``I`` expert width.

An expert stack is a pair of tensors in the Open Compute Microscaling layout:
``blocks`` is uint8 ``[E, N, K / 2]``, two E2M1 codes a byte with the even K index
in the low nibble, and ``scales`` is uint8 ``[E, N, K / 32]``, one E8M0 byte for every
32 codes along K. Instead of this order, the checkpoint's, its bytes may lie in panels, the
order of Hopper's fast kernels, which :func:`mxfp4_moe_to_panels` makes; shapes are the same.

The ops come from the ``mxfp4_moe`` kernel package, so the graph that calls them
loads it: ``Graph(..., custom_extensions=[kernel_package_path()])``.

Every function here raises ``ValueError`` while the graph is built, naming the
tensor, when ranks, dtypes, shapes or devices do not fit.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from max.dtype import DType
from max.graph import DeviceRef, Dim, DimLike, StaticDim, TensorType, TensorValue, ops

from max.nn.kernel_package import find_kernel_package
from max.nn.op_checks import check_devices, check_dim, check_tensor, static_dim

SCALE_BLOCK_SIZE = 32
"""Elements along K that share one E8M0 scale."""

OUTPUT_ROW_MULTIPLE = 8
"""Each expert's N is a multiple of this."""

MAX_EXPERTS = 65536
"""The most experts that can be selected from."""

PANEL_ROWS = 16
"""Rows of one expert in a panel; in panels, N is a multiple of this."""

MIN_PANEL_DEPTH = 256
"""The shortest K that Hopper's fast kernels take."""

MAX_PANEL_DEPTH = 8192
"""The longest K that Hopper's fast kernels take."""

_PART_ROWS = 296
# Rows of partial sums that the kernels for few tokens need: PART_ROWS of ``slice_sums.mojo``.

SWIGLU_ALPHA = 1.702
"""The gpt-oss gate's sigmoid slope."""

SWIGLU_LIMIT = 7.0
"""The gpt-oss clamp of the gate (above) and up (both sides) projections."""


def kernel_package_path() -> Path:
    """Returns the path of the ``mxfp4_moe`` kernel package, for ``custom_extensions``.

    Raises:
        KernelPackageError: If the package is missing, stale, or was built for another
            version of MAX.
    """
    return find_kernel_package("mxfp4_moe")


def fits_panels(features: int, depth: int) -> bool:
    """Says whether Hopper's fast kernels take an expert stack, which they read in panels.

    Args:
        features: ``N``.
        depth: ``K``.
    """
    return features % PANEL_ROWS == 0 and MIN_PANEL_DEPTH <= depth <= MAX_PANEL_DEPTH


def _check_stack(
    op: str,
    blocks: TensorValue,
    scales: TensorValue,
    *,
    in_panels: bool = False,
    prefix: str = "",
) -> tuple[TensorValue, TensorValue, Dim, int, int]:
    """Checks one expert stack, named with ``prefix``, and returns it with its E, N and K."""
    blocks_name, scales_name = f"{prefix}blocks", f"{prefix}scales"
    blocks = check_tensor(op, blocks_name, blocks, DType.uint8, 3)
    scales = check_tensor(op, scales_name, scales, DType.uint8, 3)
    experts = blocks.shape[0]
    rows, k = static_dim(op, blocks_name, blocks, 1), 2 * static_dim(op, blocks_name, blocks, 2)
    if k == 0 or k % SCALE_BLOCK_SIZE:
        raise ValueError(
            f"{op}: '{blocks_name}' of shape {list(blocks.shape)} holds K = {k} codes a row; "
            f"K must be a positive multiple of {SCALE_BLOCK_SIZE}."
        )
    if rows == 0 or rows % OUTPUT_ROW_MULTIPLE:
        raise ValueError(
            f"{op}: '{blocks_name}' of shape {list(blocks.shape)} has N = {rows} rows an expert; "
            f"N must be a positive multiple of {OUTPUT_ROW_MULTIPLE}."
        )
    if experts == 0:
        raise ValueError(f"{op}: '{blocks_name}' of shape {list(blocks.shape)} holds no expert.")
    of = f"for '{blocks_name}' of shape {list(blocks.shape)}"
    expected_shape: tuple[DimLike, ...] = (experts, rows, k // SCALE_BLOCK_SIZE)
    for axis, expected in enumerate(expected_shape):
        check_dim(op, scales_name, axis, scales, expected, of)
    if in_panels and not fits_panels(rows, k):
        raise ValueError(
            f"{op}: '{blocks_name}' of shape {list(blocks.shape)} has N = {rows} rows an expert "
            f"and K = {k} codes a row; in panels, N must be a multiple of {PANEL_ROWS} and K from "
            f"{MIN_PANEL_DEPTH} to {MAX_PANEL_DEPTH}."
        )
    return blocks, scales, experts, rows, k


def _check_groups(
    op: str, expert_start_indices: TensorValue, expert_ids: TensorValue
) -> tuple[TensorValue, TensorValue]:
    starts = check_tensor(op, "expert_start_indices", expert_start_indices, DType.uint32, 1)
    ids = check_tensor(op, "expert_ids", expert_ids, DType.int32, 1)
    check_dim(
        op, "expert_start_indices", 0, starts, ids.shape[0] + 1, "one more than 'expert_ids' has"
    )
    return starts, ids


def _check_top_k(op: str, top_k: int) -> None:
    if top_k < 1:
        raise ValueError(f"{op}: 'top_k' is {top_k}; it must be at least 1.")


def _check_logits(op: str, logits: TensorValue, top_k: int) -> tuple[TensorValue, int]:
    """Checks the router's logits and returns them with their experts."""
    logits = check_tensor(op, "logits", logits, DType.bfloat16, 2)
    experts = static_dim(op, "logits", logits, 1)
    if experts > MAX_EXPERTS:
        raise ValueError(
            f"{op}: 'logits' of shape {list(logits.shape)} has {experts} experts a token; "
            f"{MAX_EXPERTS} are the most."
        )
    _check_top_k(op, top_k)
    if top_k > experts:
        raise ValueError(
            f"{op}: 'top_k' is {top_k}; 'logits' of shape {list(logits.shape)} has {experts} "
            "experts a token to select from."
        )
    return logits, experts


def _table_types(tokens: Dim, top_k: int, experts: int, device: DeviceRef) -> list[TensorType]:
    """What a selection fills: weights, experts, and these sorted as by ``mxfp4_moe_route``."""
    return [
        TensorType(DType.float32, [tokens, top_k], device),
        TensorType(DType.int32, [tokens, top_k], device),
        TensorType(DType.uint32, [tokens * top_k], device),
        TensorType(DType.uint32, [experts + 1], device),
        TensorType(DType.int32, [experts], device),
    ]


def mxfp4_moe_route(
    topk_ids: TensorValue, num_experts: int
) -> tuple[TensorValue, TensorValue, TensorValue]:
    """Groups the routed rows by expert with a stable counting sort.

    Args:
        topk_ids: int32 ``[T, k]``, each token's selected experts.
        num_experts: ``E``, the number of experts.

    Returns:
        ``token_expert_order`` uint32 ``[R]``, the flat slot ``t * k + j`` of each row in
        expert order; ``expert_start_indices`` uint32 ``[E + 1]``, where each expert's rows
        begin, and ``R``; ``expert_ids`` int32 ``[E]``, which is ``0 .. E-1``.

    Raises:
        ValueError: If ``topk_ids`` has another rank or dtype, or ``num_experts`` is below 1.
    """
    op = "mxfp4_moe_route"
    topk_ids = check_tensor(op, "topk_ids", topk_ids, DType.int32, 2)
    if num_experts < 1:
        raise ValueError(f"{op}: 'num_experts' is {num_experts}; it must be at least 1.")
    device = topk_ids.device
    order, starts, ids = ops.custom(
        op,
        device=device,
        values=[topk_ids],
        out_types=[
            TensorType(DType.uint32, [topk_ids.shape[0] * topk_ids.shape[1]], device),
            TensorType(DType.uint32, [num_experts + 1], device),
            TensorType(DType.int32, [num_experts], device),
        ],
    )
    return order.tensor, starts.tensor, ids.tensor


def mxfp4_moe_select(
    logits: TensorValue, *, top_k: int
) -> tuple[TensorValue, TensorValue, TensorValue, TensorValue]:
    """Selects each token's experts, weights them, and groups the routed rows by expert.

    The experts of the largest logits, the largest first and of equal ones the smaller expert,
    weigh the softmax over their logits. The rest is :func:`mxfp4_moe_route`, in one launch on a
    GPU while tokens are few.

    Args:
        logits: bfloat16 ``[T, E]``, the router's.
        top_k: ``k``, the experts each token selects.

    Returns:
        ``router_weights`` float32 ``[T, k]``, and ``token_expert_order``,
        ``expert_start_indices`` and ``expert_ids`` as :func:`mxfp4_moe_route` returns them.

    Raises:
        ValueError: If ``logits`` has another rank or dtype, ``E`` is not static or over
            :data:`MAX_EXPERTS`, or ``top_k`` is not in 1 to ``E``.
    """
    op = "mxfp4_moe_select"
    logits, experts = _check_logits(op, logits, top_k)
    device = logits.device
    tokens = logits.shape[0]
    weights, _, order, starts, ids = ops.custom(
        op,
        device=device,
        values=[logits],
        out_types=_table_types(tokens, top_k, experts, device),
        parameters={"top_k": top_k},
    )
    return weights.tensor, order.tensor, starts.tensor, ids.tensor


class ExpertStack(NamedTuple):
    """One projection of all experts."""

    blocks: TensorValue
    """uint8 ``[E, N, K / 2]``."""
    scales: TensorValue
    """uint8 ``[E, N, K / 32]``."""
    bias: TensorValue
    """bfloat16 ``[E, N]``."""


def mxfp4_moe_experts(
    hidden: TensorValue,
    logits: TensorValue,
    gate_up: ExpertStack,
    down: ExpertStack,
    *,
    top_k: int,
    alpha: float = SWIGLU_ALPHA,
    limit: float = SWIGLU_LIMIT,
    in_panels: bool = False,
) -> TensorValue:
    """Does everything behind the router's matmul, in as few launches as are fastest.

    That is :func:`mxfp4_moe_select`, :func:`mxfp4_moe_gate_up_swiglu`, :func:`mxfp4_moe_down`
    and :func:`mxfp4_moe_combine`. In panels, up to four tokens take two launches on a Hopper
    GPU, and round to BF16 between the projections and at the end alone.

    Args:
        hidden: bfloat16 ``[T, H]``.
        logits: bfloat16 ``[T, E]``, the router's.
        gate_up: N is ``2I``, gate and up rows alternating; K is ``H``.
        down: N is ``H``, a multiple of :data:`OUTPUT_ROW_MULTIPLE`; K is ``I``.
        top_k: ``k``, the experts each token selects.
        alpha: The sigmoid's slope.
        limit: The clamp.
        in_panels: Whether both stacks are in panels, see :func:`mxfp4_moe_to_panels`.

    Returns:
        bfloat16 ``[T, H]``.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit, or ``top_k`` is not
            in 1 to ``E``.
    """
    op = "mxfp4_moe_experts"
    hidden = check_tensor(op, "hidden", hidden, DType.bfloat16, 2)
    logits, experts = _check_logits(op, logits, top_k)
    operands = {"hidden": hidden, "logits": logits}
    sizes = []
    for name, stack in (("gate_up", gate_up), ("down", down)):
        blocks, scales, count, n, k = _check_stack(
            op, stack.blocks, stack.scales, in_panels=in_panels, prefix=f"{name}_"
        )
        bias = check_tensor(op, f"{name}_bias", stack.bias, DType.bfloat16, 2)
        check_dim(op, f"{name}_bias", 0, bias, count, f"the experts in '{name}_blocks'")
        check_dim(op, f"{name}_bias", 1, bias, n, f"the rows an expert in '{name}_blocks'")
        check_dim(op, "logits", 1, logits, count, f"the experts in '{name}_blocks'")
        operands |= {f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": bias}
        sizes.append((n, k))
    (gate_up_rows, features), (down_rows, width) = sizes
    check_dim(op, "hidden", 1, hidden, features, "the K of 'gate_up_blocks'")
    check_dim(op, "hidden", 1, hidden, down_rows, "the rows an expert in 'down_blocks'")
    if gate_up_rows != 2 * width:
        raise ValueError(
            f"{op}: 'gate_up_blocks' has {gate_up_rows} rows an expert; it must have two for each "
            f"of the K = {width} codes a row of 'down_blocks'."
        )
    check_dim(op, "logits", 0, logits, hidden.shape[0], "the rows of 'hidden'")
    device = check_devices(op, operands)
    tokens = hidden.shape[0]
    # All but the first are room for what lies between: an op in a captured graph must not
    # allocate.
    return ops.custom(
        op,
        device=device,
        values=list(operands.values()),
        out_types=[
            TensorType(DType.bfloat16, [tokens, features], device),
            *_table_types(tokens, top_k, experts, device),
            TensorType(DType.bfloat16, [tokens * top_k, width], device),
            TensorType(DType.bfloat16, [tokens * top_k, features], device),
            TensorType(DType.float32, [_PART_ROWS, features], device),
        ],
        parameters={
            "top_k": top_k,
            "alpha": float(alpha),
            "limit": float(limit),
            "in_panels": in_panels,
        },
    )[0].tensor


def mxfp4_moe_scale_bytes(scales: TensorValue) -> TensorValue:
    """Gives E8M0 scales as the bytes that the other ops take.

    Args:
        scales: float8_e8m0fnu ``[E, N, K / 32]``.

    Returns:
        uint8 ``[E, N, K / 32]``.

    Raises:
        ValueError: If ``scales`` has another rank or dtype.
    """
    op = "mxfp4_moe_scale_bytes"
    scales = check_tensor(op, "scales", scales, DType.float8_e8m0fnu, 3)
    return ops.custom(
        op,
        device=scales.device,
        values=[scales],
        out_types=[TensorType(DType.uint8, scales.shape, scales.device)],
    )[0].tensor


def mxfp4_moe_to_panels(
    blocks: TensorValue, scales: TensorValue
) -> tuple[TensorValue, TensorValue]:
    """Brings an expert stack from the checkpoint's order into panels.

    The bytes of each :data:`PANEL_ROWS` neighbouring rows of an expert, a panel, are
    permuted within their place; ``panels.mojo`` of the kernel package defines the order.
    Of weights, MAX computes this once, when it initializes the model, and not in a step.

    Args:
        blocks: uint8 ``[E, N, K / 2]``, N a multiple of :data:`PANEL_ROWS`.
        scales: uint8 ``[E, N, K / 32]``.

    Returns:
        ``blocks`` and ``scales`` in panels, of the same dtypes and shapes.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    op = "mxfp4_moe_to_panels"
    blocks, scales, _, rows, _ = _check_stack(op, blocks, scales)
    if rows % PANEL_ROWS:
        raise ValueError(
            f"{op}: 'blocks' of shape {list(blocks.shape)} has N = {rows} rows an expert; "
            f"in panels, N must be a multiple of {PANEL_ROWS}."
        )
    device = check_devices(op, {"blocks": blocks, "scales": scales})
    panel_blocks, panel_scales = ops.custom(
        op, device=device, values=[blocks, scales], out_types=[blocks.type, scales.type]
    )
    return panel_blocks.tensor, panel_scales.tensor


def mxfp4_moe_matmul(
    activations: TensorValue,
    blocks: TensorValue,
    scales: TensorValue,
    expert_start_indices: TensorValue,
    expert_ids: TensorValue,
    *,
    in_panels: bool = False,
) -> TensorValue:
    """Multiplies groups of rows by their experts' packed matrices, transposed.

    Rows ``[expert_start_indices[a], expert_start_indices[a + 1])`` meet the matrix of
    expert ``expert_ids[a]``, accumulating in float32. Rows outside every group come out
    as zero.

    Args:
        activations: bfloat16 ``[R, K]``.
        blocks: uint8 ``[E, N, K / 2]``.
        scales: uint8 ``[E, N, K / 32]``.
        expert_start_indices: uint32 ``[A + 1]``, not descending, at most ``R``.
        expert_ids: int32 ``[A]``.
        in_panels: Whether ``blocks`` and ``scales`` are those of :func:`mxfp4_moe_to_panels`,
            for which :func:`fits_panels` has to hold; else they are in the checkpoint's order.

    Returns:
        bfloat16 ``[R, N]``.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    op = "mxfp4_moe_matmul"
    activations = check_tensor(op, "activations", activations, DType.bfloat16, 2)
    blocks, scales, _, n, k = _check_stack(op, blocks, scales, in_panels=in_panels)
    starts, ids = _check_groups(op, expert_start_indices, expert_ids)
    check_dim(op, "activations", 1, activations, k, "the K of 'blocks'")
    device = check_devices(
        op,
        {
            "activations": activations,
            "blocks": blocks,
            "scales": scales,
            "expert_start_indices": starts,
            "expert_ids": ids,
        },
    )
    return ops.custom(
        op,
        device=device,
        values=[activations, blocks, scales, starts, ids],
        out_types=[TensorType(DType.bfloat16, [activations.shape[0], n], device)],
        parameters={"in_panels": in_panels},
    )[0].tensor


def mxfp4_moe_gate_up_swiglu(
    hidden: TensorValue,
    token_expert_order: TensorValue,
    blocks: TensorValue,
    scales: TensorValue,
    bias: TensorValue,
    expert_start_indices: TensorValue,
    expert_ids: TensorValue,
    *,
    top_k: int,
    alpha: float = SWIGLU_ALPHA,
    limit: float = SWIGLU_LIMIT,
    in_panels: bool = False,
) -> TensorValue:
    """Gathers the routed rows, projects them to gate and up, and applies gpt-oss's SwiGLU.

    Row ``p`` of the result comes from row ``token_expert_order[p] // top_k`` of ``hidden``.
    After the bias, even output features are the gate and odd ones the up projection, and
    ``(clamp(up, -limit, limit) + 1) * g * sigmoid(alpha * g)`` with ``g = min(gate, limit)``
    is computed in float32 and rounded once.

    Args:
        hidden: bfloat16 ``[T, H]``.
        token_expert_order: uint32 ``[R]`` from :func:`mxfp4_moe_route`.
        blocks: uint8 ``[E, 2I, H / 2]``.
        scales: uint8 ``[E, 2I, H / 32]``.
        bias: bfloat16 ``[E, 2I]``.
        expert_start_indices: uint32 ``[A + 1]``.
        expert_ids: int32 ``[A]``.
        top_k: ``k``, the experts each token selected.
        alpha: The sigmoid's slope.
        limit: The clamp.
        in_panels: Whether ``blocks`` and ``scales`` are those of :func:`mxfp4_moe_to_panels`,
            for which :func:`fits_panels` has to hold; else they are in the checkpoint's order.

    Returns:
        bfloat16 ``[R, I]``, rows in expert order.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    op = "mxfp4_moe_gate_up_swiglu"
    _check_top_k(op, top_k)
    hidden = check_tensor(op, "hidden", hidden, DType.bfloat16, 2)
    order = check_tensor(op, "token_expert_order", token_expert_order, DType.uint32, 1)
    blocks, scales, experts, n, k = _check_stack(op, blocks, scales, in_panels=in_panels)
    bias = check_tensor(op, "bias", bias, DType.bfloat16, 2)
    starts, ids = _check_groups(op, expert_start_indices, expert_ids)
    check_dim(op, "hidden", 1, hidden, k, "the K of 'blocks'")
    check_dim(
        op,
        "token_expert_order",
        0,
        order,
        hidden.shape[0] * top_k,
        "'top_k' rows a row of 'hidden'",
    )
    check_dim(op, "bias", 0, bias, experts, "the experts in 'blocks'")
    check_dim(op, "bias", 1, bias, n, "the rows an expert in 'blocks'")
    device = check_devices(
        op,
        {
            "hidden": hidden,
            "token_expert_order": order,
            "blocks": blocks,
            "scales": scales,
            "bias": bias,
            "expert_start_indices": starts,
            "expert_ids": ids,
        },
    )
    return ops.custom(
        op,
        device=device,
        values=[hidden, order, blocks, scales, bias, starts, ids],
        # The second is room for gathered rows: an op in a captured graph allocates nothing.
        out_types=[
            TensorType(DType.bfloat16, [order.shape[0], n // 2], device),
            TensorType(DType.bfloat16, [order.shape[0], hidden.shape[1]], device),
        ],
        parameters={
            "top_k": top_k,
            "alpha": float(alpha),
            "limit": float(limit),
            "in_panels": in_panels,
        },
    )[0].tensor


def mxfp4_moe_down(
    gated: TensorValue,
    token_expert_order: TensorValue,
    blocks: TensorValue,
    scales: TensorValue,
    bias: TensorValue,
    router_weights: TensorValue,
    expert_start_indices: TensorValue,
    expert_ids: TensorValue,
    *,
    in_panels: bool = False,
) -> TensorValue:
    """Projects the gated rows back to the hidden size and weights them by the router.

    Row ``token_expert_order[p]`` of the result is
    ``router_weight * (gated[p] @ W^T + bias)``, computed in float32 and rounded once.

    Args:
        gated: bfloat16 ``[R, I]``, rows in expert order.
        token_expert_order: uint32 ``[R]`` from :func:`mxfp4_moe_route`.
        blocks: uint8 ``[E, H, I / 2]``.
        scales: uint8 ``[E, H, I / 32]``.
        bias: bfloat16 ``[E, H]``.
        router_weights: float32 ``[T, k]``.
        expert_start_indices: uint32 ``[A + 1]``.
        expert_ids: int32 ``[A]``.
        in_panels: Whether ``blocks`` and ``scales`` are those of :func:`mxfp4_moe_to_panels`,
            for which :func:`fits_panels` has to hold; else they are in the checkpoint's order.

    Returns:
        bfloat16 ``[R, H]``, row ``t * k + j`` holding slot ``j`` of token ``t``.

    Raises:
        ValueError: If a tensor's rank, dtype, shape or device does not fit.
    """
    op = "mxfp4_moe_down"
    gated = check_tensor(op, "gated", gated, DType.bfloat16, 2)
    order = check_tensor(op, "token_expert_order", token_expert_order, DType.uint32, 1)
    blocks, scales, experts, n, k = _check_stack(op, blocks, scales, in_panels=in_panels)
    bias = check_tensor(op, "bias", bias, DType.bfloat16, 2)
    weights = check_tensor(op, "router_weights", router_weights, DType.float32, 2)
    starts, ids = _check_groups(op, expert_start_indices, expert_ids)
    check_dim(op, "gated", 1, gated, k, "the K of 'blocks'")
    check_dim(op, "token_expert_order", 0, order, gated.shape[0], "the rows of 'gated'")
    check_dim(op, "bias", 0, bias, experts, "the experts in 'blocks'")
    check_dim(op, "bias", 1, bias, n, "the rows an expert in 'blocks'")
    slots = weights.shape[0] * weights.shape[1]
    check_dim(op, "gated", 0, gated, slots, "one row an entry of 'router_weights'")
    device = check_devices(
        op,
        {
            "gated": gated,
            "token_expert_order": order,
            "blocks": blocks,
            "scales": scales,
            "bias": bias,
            "router_weights": weights,
            "expert_start_indices": starts,
            "expert_ids": ids,
        },
    )
    return ops.custom(
        op,
        device=device,
        values=[gated, order, blocks, scales, bias, weights, starts, ids],
        out_types=[TensorType(DType.bfloat16, [gated.shape[0], n], device)],
        parameters={"in_panels": in_panels},
    )[0].tensor


def mxfp4_moe_combine(weighted: TensorValue, *, top_k: int) -> TensorValue:
    """Adds up each token's weighted expert rows in float32, in slot order, rounding once.

    Args:
        weighted: bfloat16 ``[R, H]`` from :func:`mxfp4_moe_down`, H a multiple of
            :data:`OUTPUT_ROW_MULTIPLE`.
        top_k: ``k``, the experts each token selected.

    Returns:
        bfloat16 ``[T, H]`` with ``T = R / top_k``.

    Raises:
        ValueError: If ``weighted`` has another rank or dtype, its rows do not divide by ``top_k``,
            or H is symbolic or no such multiple.
    """
    op = "mxfp4_moe_combine"
    _check_top_k(op, top_k)
    weighted = check_tensor(op, "weighted", weighted, DType.bfloat16, 2)
    rows, hidden = weighted.shape
    if isinstance(rows, StaticDim) and int(rows) % top_k:
        raise ValueError(
            f"{op}: 'weighted' has {rows} rows, which is not a multiple of top_k = {top_k}."
        )
    if static_dim(op, "weighted", weighted, 1) % OUTPUT_ROW_MULTIPLE:
        raise ValueError(
            f"{op}: 'weighted' has {hidden} features, which is not a multiple of "
            f"{OUTPUT_ROW_MULTIPLE}."
        )
    return ops.custom(
        op,
        device=weighted.device,
        values=[weighted],
        out_types=[TensorType(DType.bfloat16, [rows // top_k, hidden], weighted.device)],
        parameters={"top_k": top_k},
    )[0].tensor
