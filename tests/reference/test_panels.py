# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Copyright (c) 2026, the max-gpt-oss authors.
"""The reference of the panels' order against its definition, element by element."""

from __future__ import annotations

import numpy as np
import pytest

from reference.panels import PANEL_ROWS, to_panels, word_pairs


def test_every_element_and_scale_lies_where_the_definition_says() -> None:
    random = np.random.default_rng(0)
    experts, rows, depth = 2, 32, 96
    blocks = random.integers(0, 256, (experts, rows, depth // 2), dtype=np.uint8)
    scales = random.integers(0, 256, (experts, rows, depth // 32), dtype=np.uint8)
    panel_blocks, panel_scales = to_panels(blocks, scales)
    assert (panel_blocks.shape, panel_scales.shape) == (blocks.shape, scales.shape)
    assert panel_blocks.dtype == panel_scales.dtype == np.uint8
    stored, stored_scales = panel_blocks.reshape(-1).view("<u4"), panel_scales.reshape(-1)
    for expert, row, k in np.ndindex(experts, rows, depth):
        panel, feature = divmod(expert * rows + row, PANEL_ROWS)
        pair, of_pair = divmod(feature, 2)
        block, element = divmod(k, 32)
        unit, in_unit = divmod(element, 8)
        quarter, second = divmod(in_unit, 2)
        place = panel * (depth // 32) + block
        word = stored[place * 64 + (pair * 4 + quarter) * 2 + of_pair]
        half = int(word_pairs(word)[unit]) >> 16 * second & 0xFFFF
        code = int(blocks[expert, row, k // 2]) >> 4 * (k % 2) & 15
        assert half == (code >> 3) << 15 | (code & 7) << 6
        assert stored_scales[place * PANEL_ROWS + feature] == scales[expert, row, block]


def test_rows_that_fill_no_panel_are_refused() -> None:
    with pytest.raises(ValueError, match="24 rows"):
        to_panels(np.zeros((1, 24, 16), np.uint8), np.zeros((1, 24, 1), np.uint8))
