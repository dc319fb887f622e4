"""CriticalKV and CriticalAdaKV against their authors' fork, whose runs were given scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer
from harness.compression.selection import Selection
from harness.compression.wrappers import Wrapper
from methods.criticaladakv import CriticalAdaKV
from methods.criticalkv import CriticalKV
from tests.methods.golden.papers import Case, assert_kept, assert_near, kept, over

SELECTION = Selection("kv_head", "mean", "stable", "float32")


@dataclass(frozen=True)
class Given(Scorer):
    """The scores of a case."""

    window: ClassVar[int] = 0
    scores: tuple[tuple[float, ...], ...]

    def score(self, layer: LayerState) -> Tensor:
        return torch.tensor(self.scores)


@dataclass(frozen=True)
class Base(Method):
    """The method that a case wraps."""

    scores: Given

    @property
    def scorer(self) -> Given:
        return self.scores


class Projection:
    """The output projection of a case."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def output_projection(self, layer: int) -> Tensor:
        return self._weight

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def state_of(case: Case) -> LayerState:
    params, values = case.params, case.input("v")[0]
    weight = case.input("Wo").T.reshape(params["H"], params["D"], params["hidden"])
    queries = torch.zeros(params["H"], params["T"], params["D"])
    return LayerState(queries, values, values, 0, 1, 1.0, torch.float32, parts=Projection(weight))


def method_of(case: Case) -> Wrapper:
    params, scores = case.params, case.input("scores")[0, :, 0]
    base = Base("given", Given(tuple(tuple(head) for head in scores.tolist())))
    stages = (float(params["first_stage_ratio"]), params["epsilon"])
    if "alpha_safeguard" in params:
        return CriticalAdaKV("criticaladakv", base, params["alpha_safeguard"], *stages)
    return CriticalKV("criticalkv", base, *stages)


@over("critical_defensive", lambda case: case.id.startswith("critical"))
def test_what_each_head_keeps_is_what_the_authors_code_keeps(case: Case) -> None:
    state = state_of(case)
    (heads,) = kept(method_of(case), case.expect["n_kept"], [state], SELECTION)
    assert_kept(case, [heads], [case.expect["kept_sorted"]])
    assert_near(state.projected_norms.reshape(case.params["Hk"], -1, case.params["T"]).mean(1), norms_of(case))


def norms_of(case: Case) -> Tensor:
    return case.array("value_norm").reshape(case.params["Hk"], case.params["T"])


def test_a_prompt_in_blocks_has_the_norms_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    values, weight = torch.randn(2, 10, 4, generator=generator), torch.randn(4, 4, 12, generator=generator)
    state = LayerState(torch.zeros(4, 10, 4), values, values, 0, 1, 1.0, torch.float32, parts=Projection(weight))
    monkeypatch.setattr("harness.compression.method._BLOCK_TOKENS", 3)
    expected = (values.repeat_interleave(2, dim=0) @ weight).abs().sum(-1)
    torch.testing.assert_close(state.projected_norms, expected)
