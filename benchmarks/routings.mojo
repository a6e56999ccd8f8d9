# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The routings that every timed implementation gets.

`moe_layer/routings.py` draws the same ones for the peers.
"""

comptime TOP_K = 4


def routing_count(tokens: Int) -> Int:
    """Returns the number of routings that one figure is taken over.

    Args:
        tokens: Tokens of a step.
    """
    return 16 if tokens <= 512 else 4


@fieldwise_init
struct RoutingDraws(Copyable):
    """Uniform random choices of distinct experts, from SplitMix64."""

    var experts: Int
    """Experts to choose from."""
    var state: UInt64
    """The generator's state."""

    def __init__(out self, experts: Int, tokens: Int):
        """Starts the draws of one number of experts and tokens.

        Args:
            experts: Experts to choose from.
            tokens: Tokens of a step.
        """
        self.experts = experts
        self.state = (UInt64(experts) << 32) | UInt64(tokens)

    def next_choice(mut self, earlier: List[Int]) -> Int:
        """Returns the next expert of a token.

        Args:
            earlier: The token's experts so far, none of which comes again.
        """
        while True:
            self.state += 0x9E37_79B9_7F4A_7C15
            var x = self.state
            x = (x ^ (x >> 30)) * 0xBF58_476D_1CE4_E5B9
            x = (x ^ (x >> 27)) * 0x94D0_49BB_1331_11EB
            x ^= x >> 31
            var expert = Int(((x >> 32) * UInt64(self.experts)) >> 32)
            if expert not in earlier:
                return expert
