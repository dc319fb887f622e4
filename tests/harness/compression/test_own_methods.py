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
from harness.compression.allocation import Allocation, Shape
from harness.compression.method import LayerState, Method, Scorer
from harness.engine.engine import Engine
from harness.engine.model_spec import ModelSpec
from harness.errors import ConfigError
from tests.conftest import ROOT

SETTINGS = {"task.lengths": [300], "task.depths": [0, 50]}


@dataclass(frozen=True)
class Shaped(Scorer):
    """A scorer whose scores have any shape."""

    shape: str
    window: int = 8

    def score(self, layer: LayerState) -> Any:
        return RAW[self.shape](layer)

    def smooth(self, scores: Tensor, layer: LayerState) -> Any:
        return scores[:, 5:] if self.shape == "smooth" else scores


@dataclass(frozen=True)
class Kept(Allocation):
    """An allocation that gives anything."""

    keeps: str

    @property
    def sees(self) -> Any:
        return "layer" if self.keeps.startswith("seen") else "shape"

    def counts(self, budget: int, shape: Shape, seen: Any) -> Any:
        return KEEP[self.keeps.removeprefix("seen ")](budget, shape.tokens, 1 if seen else shape.layers)


@dataclass(frozen=True)
class Own(Method):
    """A method that keeps anything."""

    label: str = "own"
    shape: str = "every head"
    keeps: str = "right"
    more: Any = None

    @property
    def scorer(self) -> Shaped:
        return Shaped(self.shape)

    @property
    def allocation(self) -> Kept:
        return Kept(self.keeps)


def scores(layer: LayerState, heads: int, more: int = 0) -> Tensor:
    return torch.arange(heads * (layer.keys.shape[1] - 8 + more), dtype=torch.float32).reshape(heads, -1)


RAW: dict[str, Callable[[LayerState], Any]] = {
    "every head": lambda layer: scores(layer, 4),
    "one row": lambda layer: scores(layer, 1),
    "three heads": lambda layer: scores(layer, 3),
    "per kv head": lambda layer: scores(layer, layer.keys.shape[0]),
    "with the window": lambda layer: scores(layer, 4, more=8),
    "flat": lambda layer: scores(layer, 4)[0],
    "a list": lambda layer: scores(layer, 4).tolist(),
    "nothing": lambda layer: None,
    "smooth": lambda layer: scores(layer, 4),
}
KEEP: dict[str, Callable[[int, int, int], Any]] = {
    "right": lambda budget, tokens, layers: [budget] * layers,
    "per head": lambda budget, tokens, layers: [[budget] * 4] * layers,
    "ragged": lambda budget, tokens, layers: [[budget - 1, budget, budget, budget + 1]] * layers,
    "five heads": lambda budget, tokens, layers: [[budget] * 4 + [budget + 1]] * layers,
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
        ("three heads", r"score gave a tensor of shape \[3, \d+\]"),
        ("with the window", r"score gave a tensor of shape \[4, \d+\]"),
        ("flat", r"score gave a tensor of shape \[\d+\]"),
        ("a list", "score gave list"),
        ("nothing", "score gave NoneType"),
        ("smooth", "smooth gave a tensor"),
    ],
)
def test_a_scorer_of_a_wrong_shape_is_an_error_record_and_other_methods_go_on(
    engine: Engine, shape: str, said: str
) -> None:
    made = package.run(engine, "needle", ["snapkv", Own(shape=shape)], 32, settings=SETTINGS)
    by_method = {label: [r for r in made.records() if r["method"] == label] for label in ("snapkv", "own")}
    assert [record["error"] for record in by_method["snapkv"]] == [None, None]
    for record in by_method["own"]:
        assert re.search(said, record["error"])
        assert "tokens - window], here [" in record["error"] and "\n" not in record["error"]


@pytest.mark.parametrize("shape", ["every head", "per kv head", "one row"])
def test_scores_of_every_head_or_of_one_are_taken(engine: Engine, shape: str) -> None:
    made = package.run(engine, "needle", [Own(shape=shape)], 32, settings=SETTINGS)
    assert [record["error"] for record in made.records()] == [None, None]


@pytest.mark.parametrize(
    ("keeps", "said"),
    [
        ("five heads", "gives 5 numbers of entries for 4 heads of the cache"),
        ("a number", "counts gave 32: give a list of 8, each a whole number or 4 whole numbers"),
        ("halves", r"counts gave \[16.0, 16.0, .*: give a list of"),
        ("one too few", "gives 7 numbers of entries for 8 layers"),
        ("less than the window", r"keeps 4 entries in a layer: keep 8 \(its window\)"),
        ("raises", r"counts\(budget=32, .*\) failed with ZeroDivisionError"),
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
    assert ["counts gave ['few']" in str(record["error"]) for record in made.records()] == [True, False]


@pytest.mark.parametrize(
    ("keeps", "kept"), [("ragged", (31, 32, 32, 33)), ("seen ragged", (31, 32, 32, 33)), ("per head", 32)]
)
def test_heads_may_keep_different_numbers_and_equal_ones_are_one_number(engine: Engine, keeps: str, kept: Any) -> None:
    made = package.run(engine, "needle", ["fullkv", Own(keeps=keeps)], 32, settings=SETTINGS)
    own = [record for record in made.records() if record["method"] == "own"]
    assert [record["error"] for record in own] == [None, None]
    per_layer = list(kept) if isinstance(kept, tuple) else kept
    assert all(record["kept"] == [per_layer] * engine.layers for record in own)
    assert all(record["retention"] == 32 / record["prompt_tokens"] for record in own)


@pytest.mark.parametrize("keeps", ["seen five heads", "seen halves", "seen less than the window", "seen raises"])
def test_a_wrong_count_of_a_layer_that_was_seen_is_an_error_record_of_its_cells_alone(
    engine: Engine, keeps: str
) -> None:
    made = package.run(engine, "needle", ["snapkv", Own(keeps=keeps)], 32, settings=SETTINGS)
    for record in made.records():
        assert (record["error"] is None) == (record["method"] == "snapkv"), record["error"]
        assert record["error"] is None or "\n" not in record["error"]


def test_fields_that_no_manifest_can_hold_are_one_line() -> None:
    with pytest.raises(ConfigError, match="settings of method=own .* cannot be written as JSON"):
        package.run("tiny", "needle", [Own(more=object())], 32)  # type: ignore[arg-type]
