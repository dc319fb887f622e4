"""The golden data of the papers' own code: cases, their inputs by a recorded recipe, a method run on them, comparisons.

A part of the cases lies in ``tests/golden/papers``; the whole, whatever cases it holds, runs as slow tests where it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.compression.allocation import Shape
from harness.compression.budget import Budget
from harness.compression.grid import Variant
from harness.compression.method import LayerState, Method
from harness.compression.selection import Selection
from harness.engine.keeping import Keeping
from harness.errors import KvgaugeError
from harness.results import Cell

ROOT = Path(__file__).parents[3]
ROOTS = {"part": ROOT / "tests/golden/papers", "whole": ROOT.parent / "shared/golden/papers"}
SCORES, SUMS = 2e-5, 5e-5  # tolerances, relative to an array's largest magnitude

Kept = list[list[list[int]]]
"""Positions of kept entries, ascending: layers, heads, positions."""


@dataclass(frozen=True)
class Case:
    """One run of a reference on recorded inputs.

    Attributes:
        id: its name.
        file: the stem of the file that it is in.
        which: ``part`` or ``whole``.
        data: its fields, as the README of the data describes them.
    """

    id: str
    file: str
    which: str
    data: dict[str, Any] = field(compare=False, repr=False)

    @property
    def reference(self) -> str:
        """The repository, such as ``FFY0/AdaKV``."""
        return str(self.data["ref"]).partition("@")[0]

    @property
    def params(self) -> dict[str, Any]:
        """The settings of the run."""
        params: dict[str, Any] = self.data["params"]
        return params

    @property
    def expect(self) -> dict[str, Any]:
        """Small results."""
        expect: dict[str, Any] = self.data["expect"]
        return expect

    @property
    def raises(self) -> bool:
        """Whether the reference raised an exception instead of giving a result."""
        return "raises" in self.data

    @property
    def layers(self) -> int:
        """Number of layers with inputs of their own; 0 without inputs."""
        return 1 if "q" in self.data["inputs"] else sum(f"q{i}" in self.data["inputs"] for i in range(1000))

    def array(self, name: str) -> Tensor:
        """A large result by its short name."""
        return torch.from_numpy(_arrays(self.which, self.file)[self.data["arrays"][name]])

    def input(self, name: str) -> Tensor:
        """An input, drawn by its recipe and held against its hash.

        The softmax may differ in the last bit elsewhere: inputs that went through it are stored, and taken from there.
        """
        recipe = self.data["inputs"][name]
        drawn = _drawn(json.dumps(recipe, sort_keys=True))
        stored = self.data["arrays"].get(f"input_{name}")
        if stored is not None:
            near, drawn = drawn, _arrays(self.which, self.file)[stored]
            assert np.allclose(near.astype(np.float32), drawn.astype(np.float32), atol=1e-6)
        assert hashlib.sha256(np.ascontiguousarray(drawn).tobytes()).hexdigest() == recipe["sha256"], (
            f"input {name} of {self.id} is not what the reference got"
        )
        return torch.from_numpy(drawn)


wrong_formulas = pytest.mark.skipif(
    not ROOTS["whole"].is_dir(), reason=f"the whole golden data is not at {ROOTS['whole']}"
)


def cases(which: str, file: str) -> list[Case]:
    """All cases of a file."""
    path = ROOTS[which] / f"{file}.json"
    if not path.exists():
        return []
    return [Case(data["id"], file, which, data) for data in _index(which, file)["cases"]]


def over(file: str, where: Callable[[Case], bool] = lambda case: True) -> pytest.MarkDecorator:
    """Run a test for every ``case`` of the part that ``where`` wants, and as slow tests for those of the whole."""
    parameters: list[Any] = [pytest.param(case, id=f"part-{case.id}") for case in cases("part", file) if where(case)]
    if ROOTS["whole"].is_dir():
        whole = [case for case in cases("whole", file) if where(case)]
        parameters += [pytest.param(case, id=f"whole-{case.id}", marks=pytest.mark.slow) for case in whole]
    else:
        skip = pytest.mark.skip(reason=f"the whole golden data is not at {ROOTS['whole']}")
        parameters.append(pytest.param(None, id="whole", marks=[pytest.mark.slow, skip]))
    return pytest.mark.parametrize("case", parameters)


def score_sets(case: Case) -> dict[str, dict[str, list[float]]]:
    """Head scores by the name of their set, in the authors' form: ``layer-head`` to a list of trials."""
    sets: dict[str, dict[str, list[float]]] = _index(case.which, case.file)["score_sets"]
    return sets


def selection_of(case: Case) -> Selection:
    """One set of entries per query head or per kv head, by the case's mode; ties go to the lowest index."""
    granularity: Literal["query_head", "kv_head"] = "kv_head" if case.params.get("mode") == "kv_head" else "query_head"
    return Selection(granularity, case.params.get("group_agg") or "mean", "stable", "float32")


def states(case: Case) -> list[LayerState]:
    """The layers of a case at the end of its prompt of ``T`` tokens; further tokens are those of decoding.

    With a single layer, its index and the number of layers are the case's.
    """
    params, count = case.params, case.layers
    names = [""] if "q" in case.data["inputs"] else [str(index) for index in range(count)]
    parts = _Projections([_projection(case, name) for name in names])
    made = []
    for place, name in enumerate(names):
        queries, keys, values = (case.input(part + name)[0, :, : params["T"]] for part in "qkv")
        index = params.get("layer_idx", 0) if count == 1 else place
        layers = params.get("num_hidden_layers", 1) if count == 1 else count
        scaling = params["D"] ** -0.5 if "D" in params else queries.shape[-1] ** -0.5
        made.append(LayerState(queries, keys, values, index, layers, scaling, torch.float32, parts=parts))
    return made


def shape_of(layers: Sequence[LayerState], selection: Selection) -> Shape:
    """The prompt and the model of some layers."""
    (heads, tokens, _), kv_heads = layers[0].queries.shape, layers[0].keys.shape[0]
    cache_heads = heads if selection.granularity == "query_head" else kv_heads
    return Shape(tokens, layers[0].count, heads, kv_heads, cache_heads)


def kept(method: Method, budget: int | Fraction, layers: Sequence[LayerState], selection: Selection) -> Kept:
    """What a method keeps of some layers at a budget of entries, by the engine's own selection.

    Args:
        method: the method.
        budget: entries per head and layer, or a share of the prompt.
        layers: the layers, in order: all, or one alone for a method that needs no more.
        selection: how entries are selected.

    Returns:
        Kept positions per layer and head of the cache.
    """
    shape = shape_of(layers, selection)
    text = str(budget)
    parsed = Budget(text, share=budget) if isinstance(budget, Fraction) else Budget(text, tokens=budget)
    plan = Variant(Cell(method.label, text), method, parsed).plan(shape)
    keeping = Keeping([plan], selection)
    for state in layers:
        keeping.take(state, {})
    keeping.end()
    return [
        _by_head(indices, entries, shape)
        for indices, entries in zip(keeping.growing[plan].indices, keeping.growing[plan].entries, strict=True)
    ]


def assert_kept(case: Case, found: Kept, expected: Sequence[Sequence[Sequence[int]]]) -> None:
    """Hold kept positions [layers, heads, positions] against a case: exactly, or by its ties where a row has one."""
    ties = {(tie.get("layer", 0), tie["row"]): tie for tie in case.data.get("ties", [])}
    assert [len(layer) for layer in found] == [len(layer) for layer in expected]
    for layer, (heads, wanted) in enumerate(zip(found, expected, strict=True)):
        for head, (positions, want) in enumerate(zip(heads, wanted, strict=True)):
            where = f"{case.id}: layer {layer}, head {head}"
            tie = ties.get((layer, head))
            if tie is None:
                assert positions == sorted(want), where
                continue
            assert len(positions) == len(want), where
            sure, band = set(tie["sure"]), set(tie["band"])
            # The window and whatever else is no candidate is in neither list.
            free = (set(want) | set(positions)) - sure - band
            assert sure <= set(positions), where
            assert len(band & set(positions)) == tie["from_band"], where
            assert free <= set(positions) and free <= set(want), where


def assert_near(found: Tensor, expected: Tensor, tolerance: float = SCORES) -> None:
    """Hold scores against a case's, relative to their largest magnitude."""
    assert found.shape == expected.shape
    largest = expected.abs().max() if expected.numel() else 0.0
    assert ((found.double() - expected.double()).abs() <= tolerance * largest).all()


def unequal(compare: Callable[[Case], None], among: Sequence[Case]) -> int:
    """The number of cases that a comparison finds unequal; for formulas that are wrong on purpose."""
    found = 0
    for case in among:
        try:
            compare(case)
        except (AssertionError, KvgaugeError):
            found += 1
    return found


class _Projections:
    """Output projections of a case's layers."""

    def __init__(self, projections: Sequence[Tensor | None]) -> None:
        self._projections = projections

    def output_projection(self, layer: int) -> Tensor:
        projection = self._projections[layer]
        assert projection is not None
        return projection

    def rotary(self, layer: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


def _projection(case: Case, layer: str) -> Tensor | None:
    """The weight [heads, head_dim, hidden] from the recorded [hidden, heads * head_dim]; None if there is none."""
    if f"Wo{layer}" not in case.data["inputs"]:
        return None
    weight = case.input(f"Wo{layer}")
    return weight.T.reshape(case.params["H"], case.params["D"], -1)


def _by_head(indices: Tensor | None, entries: int | tuple[int, ...], shape: Shape) -> list[list[int]]:
    if indices is None:
        return [list(range(shape.tokens))] * shape.cache_heads
    if isinstance(entries, int):
        return [list(map(int, head)) for head in indices]
    joined = indices[len(entries) :]  # the numbers of entries come first
    return [list(map(int, head)) for head in joined.split(list(entries))]


@lru_cache
def _index(which: str, file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOTS[which] / f"{file}.json").read_text())
    return loaded


@lru_cache
def _arrays(which: str, file: str) -> dict[str, Any]:
    return dict(np.load(ROOTS[which] / f"{file}.npz"))


@lru_cache(maxsize=64)
def _drawn(text: str) -> Any:
    """An input by its recipe."""
    recipe = json.loads(text)
    drawn = np.random.RandomState(recipe["seed"]).standard_normal(recipe["shape"]) * recipe["scale"]
    if recipe.get("head_scale") is not None:
        drawn = drawn * np.array(recipe["head_scale"])[None, :, None, None]
    if recipe.get("chan_scale") is not None:
        drawn = drawn * np.array(recipe["chan_scale"])
    if recipe.get("add") is not None:
        drawn = drawn + recipe["add"]
    if recipe.get("round"):
        drawn = np.round(drawn)
    if recipe.get("period"):
        drawn = drawn[:, :, np.arange(drawn.shape[2]) % recipe["period"]]
    for first, last, channel, value in recipe.get("const") or []:
        drawn[:, :, first:last, channel] = value
    drawn = drawn.astype(np.float32)
    if recipe.get("tag"):
        drawn[..., 0] = np.arange(drawn.shape[2])
    if softmax := recipe.get("rowsoftmax"):
        logits = torch.from_numpy(drawn)
        if softmax == "causal":
            rows, columns = logits.shape[-2:]
            logits = logits.masked_fill(torch.ones(rows, columns).triu(columns - rows + 1).bool(), float("-inf"))
        drawn = logits.softmax(-1).numpy()
    return drawn.astype(recipe.get("dtype", "float32"))
