# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The order of packed weights that Hopper's kernels read: panels.

A panel is 16 neighbouring features of one expert over all of K. A checkpoint
keeps its rows one after the other. Here the panel's MXFP4 blocks follow each
other along K instead, 256 bytes of 16 features each, so that a warp reads
memory in its own order; and within such a block, each lane of a tensor-core
fragment finds its eight bytes side by side:

    feature pair (8) x quarter (4) x feature of the pair (2) x word (4 bytes)

A word has eight codes of one feature, in four pairs: of each eight neighbouring
elements along K the two that belong to the lane, `8 * i + 2 * quarter` and the
next as pair `i`. `panel_word.mojo` says which bits are whose. Scales follow the
blocks: a block's 16 scales lie side by side.

Panels take the bytes of a checkpoint's order and no more, and each takes the
place of the same rows.
"""

from std.math import ceildiv
from std.memory import bitcast

from max.algorithm.functional import sync_parallelize
from max.gpu import global_idx
from max.gpu.host import DeviceContext

from .kernel_argument import KernelArgument, TensorPointer
from .mxfp4 import BLOCK_BYTES, BLOCK_ELEMENTS
from .panel_word import pack_word, place_code

comptime PANEL_FEATURES = 16
"""Features of a panel: the rows of A in `mma.m16n8k16`."""

comptime WORD_BYTES = 4
"""Bytes of a word, which is an element where copies take panels for the rows of a
matrix."""

comptime PANEL_BLOCK_BYTES = PANEL_FEATURES * BLOCK_BYTES
"""Packed bytes of a panel for 32 elements along K."""

comptime _THREADS = 256


struct PanelStack(KernelArgument):
    """An expert stack as a checkpoint has it, and room for its panels."""

    comptime NAME = StaticString("panel_stack")
    """The word for this argument."""

    var panel_blocks: TensorPointer[UInt8]
    """The packed elements, in panels."""
    var panel_scales: TensorPointer[UInt8]
    """The scales, in panels."""
    var blocks: TensorPointer[UInt8]
    """Packed E2M1 `[rows, depth / 2]`, two elements a byte."""
    var scales: TensorPointer[UInt8]
    """E8M0 `[rows, depth / 32]`."""
    var rows: Int64
    """Features of all experts together, a multiple of 16."""
    var row_blocks: Int64
    """Blocks of 32 elements along K."""

    @inline(.always)
    def __init__(
        out self,
        panel_blocks: TensorPointer[UInt8],
        panel_scales: TensorPointer[UInt8],
        blocks: TensorPointer[UInt8],
        scales: TensorPointer[UInt8],
        *,
        rows: Int,
        depth: Int,
    ):
        """Names the operands.

        Args:
            panel_blocks: Room for the packed elements.
            panel_scales: Room for the scales.
            blocks: Packed E2M1 `[rows, depth / 2]`.
            scales: E8M0 `[rows, depth / 32]`.
            rows: Features of all experts together, a multiple of 16.
            depth: Length of the sum, K, a multiple of 32.
        """
        self.panel_blocks = panel_blocks
        self.panel_scales = panel_scales
        self.blocks = blocks
        self.scales = scales
        self.rows = Int64(rows)
        self.row_blocks = Int64(depth // BLOCK_ELEMENTS)

    @inline(.always)
    def move_block[alignment: Int](self, row: Int, block: Int):
        """Moves one block of one row into its panel.

        Parameters:
            alignment: Bytes that `blocks` starts at a multiple of.

        Args:
            row: The row.
            block: The block along K.
        """
        var row_blocks = Int(self.row_blocks)
        var index = row * row_blocks + block
        var panel, feature = divmod(row, PANEL_FEATURES)
        var target = panel * row_blocks + block
        self.panel_scales[
            unsafe_offset=target * PANEL_FEATURES + feature
        ] = self.scales[unsafe_offset=index]
        var units = bitcast[.uint32, 4](
            self.blocks.unsafe_load[width=BLOCK_BYTES, alignment=alignment](
                index * BLOCK_BYTES
            )
        )
        comptime for quarter in range(4):
            var pairs = SIMD[.uint32, 4](0)
            comptime for unit in range(4):
                var byte = units[unit] >> UInt32(8 * quarter)
                pairs[unit] = (
                    place_code(byte & 15) | place_code(byte >> 4 & 15) << 16
                )
            self.panel_blocks.unsafe_store[width=4, alignment=4](
                target * PANEL_BLOCK_BYTES + word_offset(feature, quarter),
                bitcast[.uint8, 4](pack_word(pairs)),
            )


@inline(.always)
def word_offset(feature: Int, quarter: Int) -> Int:
    """Finds a word within a panel's block.

    Args:
        feature: The feature within the panel.
        quarter: Which of the block's quarters.

    Returns:
        The offset in bytes.
    """
    var pair, second = divmod(feature, 2)
    return (pair * 4 + quarter) * 8 + second * 4


def to_panels_cpu(stack: PanelStack) raises:
    """Brings an expert stack into panels on the CPU.

    Args:
        stack: The operands.

    Raises:
        Error: If the work cannot be shared out to threads.
    """

    def move_row(row: Int) {imm}:
        for block in range(Int(stack.row_blocks)):
            stack.move_block[1](row, block)

    sync_parallelize(move_row, Int(stack.rows))


@__name("mxfp4_moe_to_panels")
def _to_panels_kernel(stack: PanelStack):
    var row, block = divmod(Int(global_idx.x), Int(stack.row_blocks))
    if row < Int(stack.rows):
        stack.move_block[BLOCK_BYTES](row, block)


def to_panels_gpu(stack: PanelStack, ctx: DeviceContext) raises:
    """Enqueues the same on a GPU, in one launch.

    Args:
        stack: The operands, in device memory; `blocks` starts at a multiple of
            16 bytes.
        ctx: The device.

    Raises:
        Error: If the launch fails.
    """
    var blocks = Int(stack.rows * stack.row_blocks)
    if blocks == 0:
        return
    ctx.enqueue_function[_to_panels_kernel](
        stack, grid_dim=ceildiv(blocks, _THREADS), block_dim=_THREADS
    )
