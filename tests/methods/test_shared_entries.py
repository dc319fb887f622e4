"""Methods that share entries among layers or heads keep no more than they said beforehand."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from harness.compression.allocation import Shape
from harness.compression.method import LayerState, Method
from harness.compression.selection import Selection
from methods.cake import CAKE
from methods.defensivekv import DefensiveKV
from methods.dynamickv import DynamicKV
from methods.pyramidkv import PyramidKV
from methods.simlayerkv import SimLayerKV
from tests.methods.golden.papers import Kept, kept, shape_of

METHODS: dict[str, Method] = {
    "cake": CAKE("cake", 4, 200.0, 5, 1.0, 1.0, True),
    "cake at once": CAKE("cake", 4, 200.0, 5, 0.5, 0.4, False),
    "dynamickv": DynamicKV("dynamickv", 4, 5, "avgpool", 10.0),
    "dynamickv, little above": DynamicKV("dynamickv", 4, 5, "avgpool", 1.0),
    "simlayerkv": SimLayerKV("simlayerkv", 0.3, 2, 6, 1),
    "defensivekv": DefensiveKV("defensivekv", 4, 5, 0.9, "heads"),
    "layer defensivekv": DefensiveKV("defensivekv", 4, 5, 0.9, "layers"),
    "sloped pyramid": PyramidKV("pyramidkv", 4, 5, "avgpool", 20, "sloped"),
}
SHAPES = [(30, 1), (41, 3), (64, 4), (50, 6), (64, 8)]
BUDGETS = (5, 8, 20, 29)


class Projections:
    """One output projection for all layers."""

    def output_projection(self, layer: int) -> Tensor:
        return torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(layer))

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


@lru_cache
def layers(tokens: int, count: int) -> list[LayerState]:
    """Layers that attend less and less evenly."""
    made = []
    for index in range(count):
        generator = torch.Generator().manual_seed(100 * tokens + index)
        queries, keys, values = (torch.randn(heads, tokens, 8, generator=generator) for heads in (4, 2, 2))
        scaling = (1 + index) * 8**-0.5
        made.append(LayerState(queries, keys, values, index, count, scaling, torch.float32, parts=Projections()))
    return made


def entries(found: Kept) -> int:
    return sum(len(head) for heads in found for head in heads)


@pytest.mark.parametrize("granularity", ["query_head", "kv_head"])
@pytest.mark.parametrize("name", METHODS)
def test_no_more_is_kept_than_was_planned_and_every_window_is(name: str, granularity: str) -> None:
    method = METHODS[name]
    selection = Selection("kv_head" if granularity == "kv_head" else "query_head", "mean", "stable", "float32")
    for tokens, count in SHAPES:
        states = layers(tokens, count)
        for budget in BUDGETS:
            found = kept(method, budget, states, selection)
            shape: Shape = shape_of(states, selection)
            assert method.scorer is not None
            window = method.scorer.window
            planned = Shape(
                tokens, count, shape.heads, shape.kv_heads, shape.cache_heads, window, Fraction(budget, tokens)
            )
            assert entries(found) <= method.allocation.total(budget, planned), (tokens, count, budget)
            assert all(head[-window:] == list(range(tokens - window, tokens)) for heads in found for head in heads)
            assert all(len(set(head)) == len(head) for heads in found for head in heads)


@pytest.mark.parametrize(("tokens", "count"), SHAPES)
def test_cake_and_defensivekv_spend_their_budget(tokens: int, count: int) -> None:
    selection = Selection("kv_head", "mean", "stable", "float32")
    for name in ("cake at once", "defensivekv", "layer defensivekv"):
        for budget in (8, 20):
            found = entries(kept(METHODS[name], budget, layers(tokens, count), selection))
            # CAKE may leave over what its cap cuts off in all layers but one.
            assert budget * 2 * count - (2 * count if name == "cake at once" else 0) <= found <= budget * 2 * count


def test_dynamickv_spends_its_budget_over_layers_in_full_groups_of_four_or_less() -> None:
    selection = Selection("kv_head", "mean", "stable", "float32")
    for count in (4, 8):
        for budget in (8, 20):
            assert entries(kept(METHODS["dynamickv"], budget, layers(64, count), selection)) <= budget * 2 * count


@pytest.mark.parametrize("name", METHODS)
def test_a_layer_that_looks_at_nothing_but_its_window_keeps_a_finite_number(name: str) -> None:
    window = torch.arange(64) >= 60
    states = [
        LayerState(
            queries=torch.ones(4, 64, 8) * 1e3,
            keys=window[None, :, None].float().expand(2, 64, 8) * 1e3,
            values=torch.zeros(2, 64, 8),
            index=index,
            count=4,
            scaling=1.0,
            score_dtype=torch.float32,
            parts=Projections(),
        )
        for index in range(4)
    ]
    found = kept(METHODS[name], 20, states, Selection("kv_head", "mean", "stable", "float32"))
    assert all(4 <= len(head) <= 64 for heads in found for head in heads)
    assert METHODS[name].scorer is not None
    scores = METHODS[name].scorer.score(states[0])  # type: ignore[union-attr]
    assert torch.isfinite(scores).all()
