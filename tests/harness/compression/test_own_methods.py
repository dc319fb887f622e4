"""Methods of a user's own that break the contract: one line says what was expected and what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import kvgauge as package
from harness.compression.method import LayerState
from harness.engine.engine import Engine
from harness.engine.model_spec import ModelSpec
from harness.errors import ConfigError
from tests.conftest import ROOT

SETTINGS = {"task.lengths": [300], "task.depths": [0, 50]}


@dataclass(frozen=True)
class Shaped:
    """A ranking whose scores have any shape."""

    shape: str
    window: int = 8

    def raw(self, layer: LayerState) -> Any:
        return RAW[self.shape](layer)

    def finish(self, grouped: Tensor) -> Any:
        return grouped[:, 5:] if self.shape == "finish" else grouped


@dataclass(frozen=True)
class Own:
    """A method that keeps anything."""

    shape: str = "every head"
    keeps: str = "right"
    label: str = "own"
    uses_budget: bool = True

    @property
    def ranking(self) -> Any:
        return Shaped(self.shape)

    def keep(self, budget: int, prompt_tokens: int, layers: int) -> Any:
        return KEEP[self.keeps](budget, prompt_tokens, layers)


def scores(layer: LayerState, heads: int, more: int = 0) -> Tensor:
    return torch.arange(heads * (layer.keys.shape[1] - 8 + more), dtype=torch.float32).reshape(heads, -1)


RAW: dict[str, Callable[[LayerState], Any]] = {
    "every head": lambda layer: scores(layer, 4),
    "one row": lambda layer: scores(layer, 1),
    "per kv head": lambda layer: scores(layer, layer.keys.shape[0]),
    "with the window": lambda layer: scores(layer, 4, more=8),
    "flat": lambda layer: scores(layer, 4)[0],
    "a list": lambda layer: scores(layer, 4).tolist(),
    "nothing": lambda layer: None,
    "finish": lambda layer: scores(layer, 4),
}
KEEP: dict[str, Callable[[int, int, int], Any]] = {
    "right": lambda budget, tokens, layers: [budget] * layers,
    "per head": lambda budget, tokens, layers: [[budget] * 4] * layers,
    "a number": lambda budget, tokens, layers: budget,
    "halves": lambda budget, tokens, layers: [budget / 2] * layers,
    "one too few": lambda budget, tokens, layers: [budget] * (layers - 1),
    "less than the window": lambda budget, tokens, layers: [4] * layers,
    "raises": lambda budget, tokens, layers: [budget // 0],
    "tensor": lambda budget, tokens, layers: torch.tensor([budget] * layers),
    "of short prompts": lambda budget, tokens, layers: ["few"] if tokens < 300 else [budget] * layers,
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(ModelSpec(str(ROOT / "models/tiny")))


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("per kv head", r"raw gave a tensor of shape \[2, \d+\]"),
        ("with the window", r"raw gave a tensor of shape \[4, \d+\]"),
        ("flat", r"raw gave a tensor of shape \[\d+\]"),
        ("a list", "raw gave list"),
        ("nothing", "raw gave NoneType"),
        ("finish", "finish gave a tensor"),
    ],
)
def test_a_ranking_of_a_wrong_shape_is_an_error_record_and_other_methods_go_on(
    engine: Engine, shape: str, said: str
) -> None:
    made = package.run(engine, "needle", ["snapkv", Own(shape)], 32, settings=SETTINGS)
    by_method = {label: [r for r in made.records() if r["method"] == label] for label in ("snapkv", "own")}
    assert [record["error"] for record in by_method["snapkv"]] == [None, None]
    for record in by_method["own"]:
        assert re.search(said, record["error"])
        assert "tokens - window], here [" in record["error"] and "\n" not in record["error"]


@pytest.mark.parametrize("shape", ["every head", "one row"])
def test_scores_of_every_head_or_of_one_are_taken(engine: Engine, shape: str) -> None:
    made = package.run(engine, "needle", [Own(shape)], 32, settings=SETTINGS)
    assert [record["error"] for record in made.records()] == [None, None]


@pytest.mark.parametrize(
    ("keeps", "said"),
    [
        ("per head", r"keep gave \[\[32, 32, 32, 32\], .* one per layer"),
        ("a number", "keep gave 32: give a list of 2 whole numbers"),
        ("halves", r"keep gave \[16.0, 16.0\]: give a list of"),
        ("one too few", "gives 1 numbers of entries for 2 layers"),
        ("less than the window", r"keeps 4 entries in a layer: keep 8 \(its window\)"),
        ("raises", r"keep\(budget=32, .*\) failed with ZeroDivisionError"),
    ],
)
def test_numbers_of_entries_of_a_wrong_form_are_refused_before_any_work(keeps: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^method=own:? {said}") as refused:
        package.run("tiny", "needle", [Own(keeps=keeps)], 32, settings=SETTINGS)
    assert "\n" not in str(refused.value)


def test_numbers_of_entries_may_be_whole_numbers_of_other_libraries(engine: Engine) -> None:
    made = package.run(engine, "needle", [Own(keeps="tensor")], 32, settings=SETTINGS)
    assert {tuple(record["kept"]) for record in made.records()} == {(32,) * engine.layers}


def test_what_fails_for_some_prompts_alone_costs_no_other_prompt(engine: Engine) -> None:
    settings = {"task.lengths": [300, 600], "task.depths": [50]}
    made = package.run(engine, "needle", [Own(keeps="of short prompts")], "50%", settings=settings)
    assert ["keep gave ['few']" in str(record["error"]) for record in made.records()] == [True, False]


def test_fields_that_no_manifest_can_hold_are_one_line() -> None:
    with pytest.raises(ConfigError, match="settings of method=own .* cannot be written as JSON"):
        package.run("tiny", "needle", [Own(keeps="right", uses_budget=object())], 32)  # type: ignore[arg-type]
