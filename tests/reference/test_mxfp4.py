# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The NumPy reference against the tables of the OCP Microscaling Formats v1.0, written out here."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from reference import mxfp4

# Table of E2M1 (sign, two exponent bits, one mantissa bit) as the specification lists it.
E2M1_SPEC = {
    "0000": "0", "0001": "1/2", "0010": "1", "0011": "3/2",
    "0100": "2", "0101": "3", "0110": "4", "0111": "6",
    "1000": "-0", "1001": "-1/2", "1010": "-1", "1011": "-3/2",
    "1100": "-2", "1101": "-3", "1110": "-4", "1111": "-6",
}  # fmt: skip


def spec_value(code: int, scale: int) -> float:
    """The specification's value of a code and a scale as the float32 that it rounds to."""
    if scale == 255:
        return math.nan
    text = E2M1_SPEC[f"{code:04b}"]
    sign = -1.0 if text.startswith("-") else 1.0
    exact = abs(Fraction(text)) * Fraction(2) ** (scale - 127)
    if exact >= Fraction(2) ** 128:
        return math.copysign(math.inf, sign)
    assert Fraction(float(exact)) == exact
    return math.copysign(float(exact), sign)


def test_every_code_times_every_scale_is_exact() -> None:
    blocks = np.zeros((256, 16), dtype=np.uint8)
    # Codes 0..15 at even K indices, 15..0 at odd ones.
    for index in range(16):
        blocks[:, index] = index | (15 - index) << 4
    scales = np.arange(256, dtype=np.uint8)[:, None]
    values = mxfp4.dequantize(blocks, scales)
    assert values.dtype == np.float32
    assert values.shape == (256, 32)
    for scale in range(256):
        for index in range(16):
            for code, value in ((index, values[scale, 2 * index]),
                                (15 - index, values[scale, 2 * index + 1])):  # fmt: skip
                expected = spec_value(code, scale)
                if math.isnan(expected):
                    assert np.isnan(value)
                else:
                    assert float(value) == expected
                    assert math.copysign(1.0, value) == math.copysign(1.0, expected)


def test_a_scale_covers_its_own_32_values() -> None:
    blocks = np.full((2, 3, 32), 0x42, dtype=np.uint8)  # 1.0 then 2.0
    scales = np.array([[[127, 128], [126, 130], [0, 254]]] * 2, dtype=np.uint8)
    values = mxfp4.dequantize(blocks, scales)
    assert values.shape == (2, 3, 64)
    for row, (first, second) in enumerate(((0, 1), (-1, 3), (-127, 127))):
        for half, exponent in ((slice(0, 32), first), (slice(32, 64), second)):
            part = values[:, row, half]
            assert np.all(part[:, 0::2] == np.float32(math.ldexp(1.0, exponent)))
            expected = math.inf if exponent == 127 else math.ldexp(2.0, exponent)
            assert np.all(part[:, 1::2] == expected)


@pytest.mark.parametrize(
    ("blocks", "scales"),
    [
        (np.zeros((2, 16), np.int8), np.zeros((2, 1), np.uint8)),
        (np.zeros((2, 16), np.uint8), np.zeros((2, 1), np.float32)),
        (np.zeros((2, 16), np.uint8), np.zeros((3, 1), np.uint8)),
        (np.zeros((2, 16), np.uint8), np.zeros((2, 2), np.uint8)),
        (np.zeros((2, 15), np.uint8), np.zeros((2, 1), np.uint8)),
        (np.zeros((2, 16), np.uint8), np.zeros((1,), np.uint8)),
    ],
)
def test_what_does_not_belong_together_is_refused(blocks: np.ndarray, scales: np.ndarray) -> None:
    with pytest.raises(ValueError, match="blocks"):
        mxfp4.dequantize(blocks, scales)


def test_bf16_rounds_to_nearest_even() -> None:
    cases = {
        0x00000000: 0x0000, 0x80000000: 0x8000, 0x3F800000: 0x3F80,
        0x3F808000: 0x3F80,  # a tie, to the even neighbour below
        0x3F818000: 0x3F82,  # a tie, to the even neighbour above
        0x3F808001: 0x3F81, 0x3F807FFF: 0x3F80,
        0x7F7FFFFF: 0x7F80, 0xFF7FFFFF: 0xFF80,  # overflow
        0x7F800000: 0x7F80, 0xFF800000: 0xFF80,
        0x00000001: 0x0000, 0x00008001: 0x0001, 0x007FFFFF: 0x0080,  # subnormals
        0x00400000: 0x0040, 0x80400000: 0x8040,
    }  # fmt: skip
    values = np.array(list(cases), dtype=np.uint32).view(np.float32)
    assert mxfp4.to_bf16_bits(values).tolist() == list(cases.values())


@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000])
def test_bf16_of_nan_is_nan(bits: int) -> None:
    value = np.array([bits], dtype=np.uint32).view(np.float32)
    (rounded,) = mxfp4.to_bf16_bits(value)
    assert rounded & 0x7F80 == 0x7F80
    assert rounded & 0x007F != 0
    assert rounded >> 15 == bits >> 31


def test_bf16_bits_round_trip() -> None:
    bits = np.arange(65536, dtype=np.uint32).astype(np.uint16)
    values = mxfp4.from_bf16_bits(bits)
    keep = ~np.isnan(values)
    assert np.array_equal(mxfp4.to_bf16_bits(values)[keep], bits[keep])
    assert np.isnan(mxfp4.round_bf16(values)[~keep]).all()


def test_bf16_of_float64_is_rounded_once() -> None:
    tie = 1.0 + 2.0**-8
    values = np.array([tie + 2.0**-40, tie - 2.0**-40, tie, -tie - 2.0**-40, 1e300, -1e-300])
    expected = [1.0 + 2.0**-7, 1.0, 1.0, -1.0 - 2.0**-7, math.inf, -0.0]
    rounded = mxfp4.round_bf16(values)
    assert rounded.tolist() == expected
    assert math.copysign(1.0, rounded[-1]) == -1.0


def test_dequantized_values_fit_bf16() -> None:
    table = mxfp4.value_table()
    rounded = mxfp4.round_bf16(table)
    assert np.array_equal(table, rounded, equal_nan=True)
