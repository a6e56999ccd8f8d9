# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""What follows the sums of a grouped matmul, in registers.

Both implementations of the matmul hand an epilogue the float32 sums of two
neighbouring output features of one routed row. The pair is what gpt-oss needs:
its gate and up rows alternate.
"""

from std.math import exp2, recip
from std.memory import bitcast
from std.sys import size_of

from .kernel_argument import KernelArgument, TensorPointer
from .l2_prefetch import prefetch_to_l2
from .subnormals import round_to_bf16


comptime _LOG2_E = Float32(1.4426950408889634)

comptime Operands = SIMD[.float32, 2]
"""What an epilogue read from memory for a row, or for a pair of features."""

comptime Results = SIMD[.float32, 2]
"""What an epilogue made of a pair of sums."""


trait Epilogue(KernelArgument):
    """Takes the sums of features `feature` and `feature + 1` of one row.

    Reading is apart, so that a kernel can read once what many pairs of sums meet,
    and writing as well, so that it can finish many before it writes the first.
    """

    comptime READS_ROWS: Bool
    """Whether `load_row` reads anything."""

    comptime READS_FEATURES: Bool
    """Whether `load_features` reads anything, which is added to the sums then."""

    comptime JOINS_FEATURES: Bool
    """Whether a pair of sums becomes one result, and not two."""

    @inline(.always)
    def load_row(self, row: Int) -> Operands:
        """Reads what all sums of a row meet: nothing, unless `READS_ROWS`.

        Args:
            row: The routed row.

        Returns:
            What `finish` takes.
        """
        return 0

    @inline(.always)
    def prefetch_row(self, row: Int):
        """Starts to bring what `load_row` reads closer.

        Args:
            row: The routed row.
        """
        pass

    @inline(.always)
    def load_features(self, expert: Int, feature: Int) -> Operands:
        """Reads what the sums of two features meet: nothing, unless
        `READS_FEATURES`.

        Args:
            expert: The expert whose weights make the sums.
            feature: The first of the two features, an even number.

        Returns:
            What `finish` takes.
        """
        return 0

    @inline(.always)
    def prefetch_features(self, expert: Int, feature: Int):
        """Starts to bring what `load_features` reads closer.

        Args:
            expert: The expert whose weights make the sums.
            feature: The first of the two features, an even number.
        """
        pass

    def finish(
        self,
        of_row: Operands,
        of_features: Operands,
        sum0: Float32,
        sum1: Float32,
    ) -> Results:
        """Finishes a pair of sums.

        Args:
            of_row: What `load_row` returned.
            of_features: What `load_features` returned.
            sum0: The sum of the first feature.
            sum1: The sum of the one after it.

        Returns:
            What `write` takes.
        """
        ...

    def write(self, of_row: Operands, row: Int, feature: Int, results: Results):
        """Writes what a pair of sums has become.

        Args:
            of_row: What `load_row` returned.
            row: The routed row.
            feature: The first of the two features, an even number.
            results: What `finish` returned.
        """
        ...

    def write_pair(
        self, of_row: Operands, row: Int32, feature: Int32, pair: UInt32
    ):
        """Writes two results that lie side by side, rounded to BF16.

        Args:
            of_row: What `load_row` returned.
            row: The routed row.
            feature: The first feature whose sum is in them.
            pair: The results, the first in the low half.
        """
        ...

    @inline(.always)
    def store(
        self, expert: Int, row: Int, feature: Int, sum0: Float32, sum1: Float32
    ):
        """Reads, finishes and writes at once.

        Args:
            expert: The expert whose weights made the sums.
            row: The routed row.
            feature: The first of the two features, an even number.
            sum0: The sum of `feature`.
            sum1: The sum of `feature + 1`.
        """
        var of_row = self.load_row(row)
        var of_features = self.load_features(expert, feature)
        var results = self.finish(of_row, of_features, sum0, sum1)
        self.write(of_row, row, feature, results)

    def store_empty(self, row: Int, feature: Int):
        """Stores zero for a row that belongs to no expert.

        Args:
            row: The routed row.
            feature: The first of the two features, an even number.
        """
        ...


@fieldwise_init
struct StoreBF16(Epilogue):
    """Rounds the sums to BF16: the plain matmul."""

    comptime NAME = StaticString("store")
    """The word for this epilogue."""

    comptime READS_ROWS = False
    """Whether rows have operands."""

    comptime READS_FEATURES = False
    """Whether features have operands."""

    comptime JOINS_FEATURES = False
    """Whether a pair of sums becomes one result."""

    var output: TensorPointer[BFloat16]
    """BF16 `[rows, features]`."""
    var features: Int32
    """Output features, N."""

    @inline(.always)
    def finish(
        self,
        of_row: Operands,
        of_features: Operands,
        sum0: Float32,
        sum1: Float32,
    ) -> Results:
        """Returns the two sums.

        Args:
            of_row: Nothing.
            of_features: Nothing.
            sum0: The sum of the first feature.
            sum1: The sum of the one after it.

        Returns:
            Both.
        """
        return Results(sum0, sum1)

    @inline(.always)
    def write(self, of_row: Operands, row: Int, feature: Int, results: Results):
        """Writes the two sums.

        Args:
            of_row: Nothing.
            row: The routed row.
            feature: The first of the two features, an even number.
            results: The sums.
        """
        _place(self.output, row, self.features, feature).unsafe_store[
            alignment=4
        ](round_to_bf16(results))

    @inline(.always)
    def write_pair(
        self, of_row: Operands, row: Int32, feature: Int32, pair: UInt32
    ):
        """Writes two results.

        Args:
            of_row: Nothing.
            row: The routed row.
            feature: The first feature whose sum is in them.
            pair: The results, the first in the low half.
        """
        _place(
            self.output, Int(row), self.features, Int(feature)
        ).unsafe_bitcast[UInt32]()[] = pair

    @inline(.always)
    def store_empty(self, row: Int, feature: Int):
        """Stores two zeros.

        Args:
            row: The routed row.
            feature: The first of the two features, an even number.
        """
        self.output.unsafe_store[alignment=4](
            row * Int(self.features) + feature, SIMD[.bfloat16, 2](0)
        )


@fieldwise_init
struct BiasSwiGLU[alpha: Float32, limit: Float32](Epilogue):
    """Adds the expert's bias and applies gpt-oss's clamped SwiGLU.

    `(clamp(up, -limit, limit) + 1) * g * sigmoid(alpha * g)` with
    `g = min(gate, limit)`, in float32, rounded to BF16 once. Even features are
    gates, odd ones are ups.

    Parameters:
        alpha: The sigmoid's slope.
        limit: The clamp.
    """

    comptime NAME = StaticString("swiglu")
    """The word for this epilogue."""

    comptime READS_ROWS = False
    """Whether rows have operands."""

    comptime READS_FEATURES = True
    """Whether features have operands."""

    comptime JOINS_FEATURES = True
    """Whether a pair of sums becomes one result."""

    var output: TensorPointer[BFloat16]
    """BF16 `[rows, features / 2]`."""
    var bias: TensorPointer[BFloat16]
    """BF16 `[experts, features]`."""
    var features: Int32
    """Features before the activation, twice the expert width."""

    @inline(.always)
    def load_features(self, expert: Int, feature: Int) -> Operands:
        """Reads the two biases.

        Args:
            expert: The expert whose weights make the sums.
            feature: The first of the two features, an even number.

        Returns:
            The biases.
        """
        return load_biases(self.bias, expert, self.features, feature)

    @inline(.always)
    def prefetch_features(self, expert: Int, feature: Int):
        """Starts to bring the two biases to L2.

        Args:
            expert: The expert whose weights make the sums.
            feature: The first of the two features, an even number.
        """
        prefetch_biases(self.bias, expert, self.features, feature)

    @inline(.always)
    def finish(
        self,
        of_row: Operands,
        of_features: Operands,
        sum0: Float32,
        sum1: Float32,
    ) -> Results:
        """Returns the one activation that the pair yields.

        Args:
            of_row: Nothing.
            of_features: The biases.
            sum0: The sum of the first feature.
            sum1: The sum of the one after it.

        Returns:
            The activation, twice.
        """
        return clamped_swiglu[Self.alpha, Self.limit](
            sum0 + of_features[0], sum1 + of_features[1]
        )

    @inline(.always)
    def write(self, of_row: Operands, row: Int, feature: Int, results: Results):
        """Writes the activation.

        Args:
            of_row: Nothing.
            row: The routed row.
            feature: The first of the two features, an even number.
            results: The activation.
        """
        _place(
            self.output, row, self.features >> 1, feature >> 1
        )[] = round_to_bf16(results[0])

    @inline(.always)
    def write_pair(
        self, of_row: Operands, row: Int32, feature: Int32, pair: UInt32
    ):
        """Writes two results.

        Args:
            of_row: Nothing.
            row: The routed row.
            feature: The first feature whose sum is in them.
            pair: The results, the first in the low half.
        """
        _place(
            self.output, Int(row), self.features >> 1, Int(feature >> 1)
        ).unsafe_bitcast[UInt32]()[] = pair

    @inline(.always)
    def store_empty(self, row: Int, feature: Int):
        """Stores zero.

        Args:
            row: The routed row.
            feature: The first of the two features, an even number.
        """
        self.output[
            unsafe_offset=(row * Int(self.features) + feature) // 2
        ] = BFloat16(0)


@fieldwise_init
struct BiasWeightScatter(Epilogue):
    """Adds the bias, applies the router's weight, and restores slot order.

    A routed row's result lands in the row of its slot `token * top_k + choice`,
    where the combine finds a token's results side by side.
    """

    comptime NAME = StaticString("scatter")
    """The word for this epilogue."""

    comptime READS_ROWS = True
    """Whether rows have operands."""

    comptime READS_FEATURES = True
    """Whether features have operands."""

    comptime JOINS_FEATURES = False
    """Whether a pair of sums becomes one result."""

    var output: TensorPointer[BFloat16]
    """BF16 `[rows, features]`, in slot order."""
    var bias: TensorPointer[BFloat16]
    """BF16 `[experts, features]`."""
    var router_weights: TensorPointer[Float32]
    """Float32 `[rows]`, in slot order."""
    var token_expert_order: TensorPointer[UInt32]
    """The slot of each routed row."""
    var features: Int32
    """Output features, N."""

    @inline(.always)
    def load_row(self, row: Int) -> Operands:
        """Reads the row's slot and the router's weight.

        Args:
            row: The routed row.

        Returns:
            The weight, and the slot as bits.
        """
        var slot = self.token_expert_order[unsafe_offset=row]
        return Operands(
            self.router_weights[unsafe_offset=Int(slot)],
            bitcast[.float32](slot),
        )

    @inline(.always)
    def prefetch_row(self, row: Int):
        """Reads the row's slot, and starts to bring the router's weight to L2.

        Args:
            row: The routed row.
        """
        var slot = self.token_expert_order[unsafe_offset=row]
        prefetch_to_l2(self.router_weights.unsafe_offset(Int(slot)))

    @inline(.always)
    def load_features(self, expert: Int, feature: Int) -> Operands:
        """Reads the two biases.

        Args:
            expert: The expert whose weights make the sums.
            feature: The first of the two features, an even number.

        Returns:
            The biases.
        """
        return load_biases(self.bias, expert, self.features, feature)

    @inline(.always)
    def prefetch_features(self, expert: Int, feature: Int):
        """Starts to bring the two biases to L2.

        Args:
            expert: The expert whose weights make the sums.
            feature: The first of the two features, an even number.
        """
        prefetch_biases(self.bias, expert, self.features, feature)

    @inline(.always)
    def finish(
        self,
        of_row: Operands,
        of_features: Operands,
        sum0: Float32,
        sum1: Float32,
    ) -> Results:
        """Returns the two weighted results.

        Args:
            of_row: The router's weight and the slot.
            of_features: The biases.
            sum0: The sum of the first feature.
            sum1: The sum of the one after it.

        Returns:
            The results.
        """
        return (Results(sum0, sum1) + of_features) * of_row[0]

    @inline(.always)
    def write(self, of_row: Operands, row: Int, feature: Int, results: Results):
        """Writes the two results in the slot's row.

        Args:
            of_row: The router's weight and the slot.
            row: The routed row.
            feature: The first of the two features, an even number.
            results: The results.
        """
        var slot = Int(bitcast[.uint32](of_row[1]))
        _place(self.output, slot, self.features, feature).unsafe_store[
            alignment=4
        ](round_to_bf16(results))

    @inline(.always)
    def write_pair(
        self, of_row: Operands, row: Int32, feature: Int32, pair: UInt32
    ):
        """Writes two results.

        Args:
            of_row: The router's weight and the slot.
            row: The routed row.
            feature: The first feature whose sum is in them.
            pair: The results, the first in the low half.
        """
        _place(
            self.output,
            Int(bitcast[.uint32](of_row[1])),
            self.features,
            Int(feature),
        ).unsafe_bitcast[UInt32]()[] = pair

    @inline(.always)
    def store_empty(self, row: Int, feature: Int):
        """Stores two zeros in the slot's row.

        Args:
            row: The routed row.
            feature: The first of the two features, an even number.
        """
        var slot = Int(self.token_expert_order[unsafe_offset=row])
        self.output.unsafe_store[alignment=4](
            slot * Int(self.features) + feature, SIMD[.bfloat16, 2](0)
        )


@inline(.always)
def clamped_swiglu[
    alpha: Float32, limit: Float32
](gate: Float32, up: Float32) -> Float32:
    """Applies gpt-oss's activation: see `BiasSwiGLU`.

    Parameters:
        alpha: The sigmoid's slope.
        limit: The clamp.

    Args:
        gate: The gate, with its bias.
        up: What it gates, with its bias.

    Returns:
        The activation.
    """
    comptime slope = -alpha * _LOG2_E
    var bounded = _min(gate, limit)
    var clamped = _max(_min(up, limit), -limit)
    # On the GPU the reciprocal is one instruction, a division forty.
    return clamped.fma(bounded, bounded) * recip(1 + exp2(slope * bounded))


@inline(.always)
def load_biases(
    bias: TensorPointer[BFloat16], expert: Int, features: Int32, feature: Int
) -> Operands:
    """Reads the biases of two neighbouring features.

    Args:
        bias: BF16 `[experts, features]`.
        expert: The expert.
        features: Features of an expert.
        feature: The first of the two, an even number.

    Returns:
        The biases.
    """
    return bias.unsafe_load[width=2](expert * Int(features) + feature).cast[
        .float32
    ]()


@inline(.always)
def prefetch_biases(
    bias: TensorPointer[BFloat16], expert: Int, features: Int32, feature: Int
):
    """Starts to bring what `load_biases` reads to L2.

    Args:
        bias: BF16 `[experts, features]`.
        expert: The expert.
        features: Features of an expert.
        feature: The first of the two, an even number.
    """
    prefetch_to_l2(bias.unsafe_offset(expert * Int(features) + feature))


@inline(.always)
def _place[
    dtype: DType
](
    output: TensorPointer[Scalar[dtype]], row: Int, width: Int32, feature: Int
) -> TensorPointer[Scalar[dtype]]:
    # Rows and the bytes of one fit 32 bits, and the feature is the same for many
    # rows: so an address is one multiplication and addition.
    var row_bytes = UInt32(width) * UInt32(size_of[dtype]())
    return (
        output.unsafe_offset(feature)
        .unsafe_bitcast[UInt8]()
        .unsafe_offset(Int(UInt64(UInt32(row)) * UInt64(row_bytes)))
        .unsafe_bitcast[Scalar[dtype]]()
    )


@inline(.always)
def _min(x: Float32, bound: Float32) -> Float32:
    # Unlike the hardware's minimum, keeps a NaN, as PyTorch's clamp does.
    return bound if x > bound else x


@inline(.always)
def _max(x: Float32, bound: Float32) -> Float32:
    return bound if x < bound else x
