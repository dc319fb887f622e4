"""All methods in one grid: one prefill and one wide decoding give the tokens of each method alone."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from harness.compression.selection import Selection
from tests.harness.engine.test_wrapped_methods import Wrapped
from tests.harness.tiny import decode_together, prompt_of, tiny
from tests.methods.test_contract import NAMES, make

# Longer than every method's window, with a budget in between.
PROMPT, BUDGET, LAYERS = prompt_of(90), 70, 3


@pytest.mark.slow
@pytest.mark.parametrize("kv_heads", [2, 4])
@pytest.mark.parametrize("granularity", ["kv_head", "query_head"])
def test_every_method_gives_in_a_grid_of_all_what_it_gives_alone(
    kv_heads: int, granularity: Literal["kv_head", "query_head"]
) -> None:
    model, selection = tiny(kv_heads, LAYERS), Selection(granularity, "mean", "stable", "float32")
    cells = [Wrapped(PROMPT, make(name), BUDGET, kv_heads, granularity) for name in NAMES]
    together, logits = decode_together(model, cells, selection, max_new_tokens=5)
    for cell, outcome, seen in zip(cells, together, logits, strict=True):
        (alone,), (its_logits,) = decode_together(model, [cell], selection, max_new_tokens=5)
        assert outcome == alone and outcome.error is None
        torch.testing.assert_close(seen[: len(its_logits)], its_logits, rtol=1e-4, atol=1e-5)
