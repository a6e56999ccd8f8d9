# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""Prints the choices of every routing: `print_routings EXPERTS TOKENS`."""

from std.sys import argv

from routings import TOP_K, RoutingDraws, routing_count


def main() raises:
    var experts = Int(argv()[1])
    var tokens = Int(argv()[2])
    var draws = RoutingDraws(experts, tokens)
    for _ in range(routing_count(tokens) * tokens):
        var chosen = List[Int]()
        for _ in range(TOP_K):
            var expert = draws.next_choice(chosen)
            print(expert)
            chosen.append(expert)
