"""KVCompose, structured or not, keeps what kvpress keeps, and wrong formulas do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.compression.allocation import Seen, Shape
from methods.kvcompose import CompositeTokens, KVCompose, RereadContext
from tests.methods.golden import kvpress, replays
from tests.methods.golden.kvpress import Bits, Case, cases, over
from tests.methods.golden.wrong import Wrong

VARIANTS = ("kvcompose_struct", "kvcompose_unstruct")
KNOBS = ("structured", "agg_task", "agg_group", "agg_head", "add_v_norm", "add_mean_across_heads")


def method_of(case: Case) -> KVCompose:
    return KVCompose("m", *(case.settings[knob] for knob in (*KNOBS, "keep_token_lower_bound")))


def unequal(chosen: Sequence[Case]) -> dict[str, str]:
    found = {}
    for case in chosen:
        bits = replays.kept(case, method_of(case), kvpress.prompt(case.tokens))
        said = kvpress.verdict(case, bits)
        if said != "equal" and not (said == "tie" and is_of_the_first_layer(case, bits)):
            found[case.id] = said
    return found


def is_of_the_first_layer(case: Case, bits: Bits) -> bool:
    """Whether in all heads of the first layer a last entry was kept for one in all heads of another layer.

    The first layer's composite tokens are the largest of all layers, so that such a pair ties by design.
    """
    changed = (bits != case.kept).sum(-1)
    more = sorted((bits.sum(-1) - case.kept.sum(-1)).tolist())
    heads = bits.shape[1]
    return bool((changed[0] == 1).all() and changed.max() == 1) and more == [
        [-1] * heads, *[[0] * heads] * (len(bits) - 2), [1] * heads,
    ]  # fmt: skip


@over(*VARIANTS)
def test_kvcompose_keeps_what_kvpress_keeps(which: str, variant: str) -> None:
    chosen = cases(which, variant)
    assert chosen and unequal(chosen) == {}


# --- formulas that are wrong on purpose

STRUCTURED, UNSTRUCTURED = VARIANTS
WRONG = {
    "a softmax over the context alone": (
        Wrong(RereadContext, "read", "block.amax(1)", "(block / block.sum(-1, keepdim=True)).amax(1)"), UNSTRUCTURED,
    ),
    "the mean for the largest weight": (
        Wrong(RereadContext, "read", 'self.agg_task == "max"', "False"), UNSTRUCTURED,
    ),
    "the largest of a group": (Wrong(RereadContext, "read", "self.agg_group", '"max"'), UNSTRUCTURED),
    "without the mean of the heads": (
        Wrong(RereadContext, "read", "if self.add_mean_across_heads", "if False"), STRUCTURED,
    ),
    "a first layer that is as any other": (
        Wrong(CompositeTokens, "counts", "composite[0] = composite.amax(0)", "pass"), STRUCTURED,
    ),
    "composite tokens of one position": (
        Wrong(CompositeTokens, "counts", ".sort(dim=-1, descending=True).values", ""), STRUCTURED,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong, variant = WRONG[name]
    wrong.put(monkeypatch)
    replays.scores.cache_clear()
    assert unequal(cases("part", variant)) != {}
    replays.scores.cache_clear()


# --- what kvpress's cases do not show


@pytest.mark.parametrize("structured", [True, False])
@pytest.mark.parametrize("least", [0, 5, 40])
def test_every_layer_keeps_the_lower_bound_and_all_together_what_was_planned(structured: bool, least: int) -> None:
    allocation = CompositeTokens(structured, "mean", least)
    generator = torch.Generator().manual_seed(0)
    seen = [Seen(layer, torch.rand(2, 30, generator=generator) * 9.0**layer) for layer in range(3)]
    for budget in (1, 4, 8, 29, 30):
        shape = Shape(30, 3, 2, 2, 2, share=Fraction(budget, 30))
        counts = torch.tensor(allocation.counts(budget, shape, seen))
        counts = counts.expand(2, 3) if structured else counts
        assert counts.min() >= min(30, max(1, least)) and counts.max() <= 30
        assert counts.sum() == allocation.total(budget, shape) == max(budget, min(30, max(1, least))) * 6


def test_aggregations_and_norms_change_what_a_scorer_reads() -> None:
    (case,) = (case for case in cases("part", STRUCTURED) if (case.model, case.tokens) == ("gqa", 64))
    usual = method_of(case).scorer

    def scores(**knobs: Any) -> Tensor:
        return torch.stack(replays.scores(case.model, kvpress.prompt(64), replace(usual, **knobs), None))

    alone = scores(add_mean_across_heads=False)
    norms = torch.stack([state.values.norm(dim=-1) for state in kvpress.states(case.model, 64)])
    torch.testing.assert_close(scores(add_mean_across_heads=False, add_v_norm=True), alone * norms)
    torch.testing.assert_close(scores(), alone + alone.mean(1, keepdim=True))
    largest = scores(add_mean_across_heads=False, agg_group="max")
    assert (largest >= alone).all() and (largest > alone).any()
    # Of the weights of a token that is read again, which sum to 1, some are on the replay itself.
    means = scores(add_mean_across_heads=False, agg_task="mean")
    assert (means < alone).all() and 0 < means.sum(-1).min() < means.sum(-1).max() < 1
