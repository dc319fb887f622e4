"""Kept sets and scores of single layers, equal to the published code's: a part of its golden data always, the whole
where it is there.

``ties=torch`` and ``dtype=model`` reproduce the published code's own choice. Queries and keys are random numbers by a
recorded recipe: they are drawn here, and held against a hash, instead of being stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.compression.grid import Plan
from harness.compression.method import LayerState, Method
from harness.compression.selection import Selection, group_heads, order_of
from harness.engine.attention import ENGINE
from harness.engine.prefill import Kept, prefill
from harness.errors import BudgetError
from methods.h2o import H2O
from methods.pyramidkv import PyramidKV
from methods.snapkv import SnapKV
from methods.streamingllm import StreamingLLM
from tests.harness.counts import keep_of

Case = dict[str, Any]

ROOT = Path(__file__).parents[3]
ROOTS = {"part": ROOT / "tests/golden/cluster", "whole": ROOT.parent / "shared/golden/cluster"}
COUNTS = {"part": (87, 12, 32), "whole": (345, 24, 32)}
HEAD_DIM = 32
LEGACY = "legacy_ffac160_kept_indices.npz"
INPUT_SHA256 = {
    "T200": "9d3143fb6ddaae992a91d2a00c21c41d3653936ab2e3721ce32e5dc499261cc7",
    "T700": "9b1d4e175668647c8b27a39d5a4f1c425f2ced8bbdf5420df964e54fc17c14e4",
    "b2T200": "c58c15d78b4dfea229b0c4c1c671ebce883b3c19bb33539113f076eb1ee494a0",
}


# --- the data


@lru_cache
def index(which: str) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((ROOTS[which] / "cases.json").read_text()))


@lru_cache
def arrays(which: str, file: str) -> dict[str, Any]:
    return dict(np.load(ROOTS[which] / file))


def over(items: Callable[[str], list[Case]]) -> pytest.MarkDecorator:
    """Run a test for everything that ``items`` finds in the part, and as slow tests in the whole."""
    parameters = [pytest.param("part", item, id=f"part-{item['id']}") for item in items("part")]
    if ROOTS["whole"].is_dir():
        slow = pytest.mark.slow
        parameters += [pytest.param("whole", item, id=f"whole-{item['id']}", marks=slow) for item in items("whole")]
    else:
        skip = pytest.mark.skip(reason=f"the whole golden data is not at {ROOTS['whole']}")
        parameters.append(pytest.param("whole", {}, id="whole", marks=[pytest.mark.slow, skip]))
    return pytest.mark.parametrize(("which", "item"), parameters)


def cases(which: str) -> list[Case]:
    return cast("list[Case]", index(which)["cases"])


def scored_cases(which: str) -> list[Case]:
    return [case for case in cases(which) if "score_key" in case]


def parsed(id: str) -> Case:
    """The case that an id spells out: ``PyramidKV|T200|mha8|b24|w8|k7|maxpool|layer3of8``."""
    method, name, kvmode, budget, window, kernel, pooling, *rest = id.split("|")
    layer, layers = rest[0].removeprefix("layer").split("of") if rest and rest[0].startswith("layer") else (None, None)
    return {
        **{
            "id": id,
            "method": method,
            "input": name,
            "kvmode": kvmode,
            "budget": int(budget[1:]),
            "window": int(window[1:]),
        },
        **{"kernel": int(kernel[1:]), "pooling": pooling, "agg": None, "dtype": "float32", "compressed": True},
        **{"layer": layer and int(layer), "num_layers": layers and int(layers)},
    }


def legacy_cases(which: str) -> list[Case]:
    return [parsed(id) for id in arrays(which, LEGACY)]


def error_cases(which: str) -> list[Case]:
    return [{**parsed(error["id"]), "error": error["error"]} for error in index(which)["errors"]]


@lru_cache
def inputs(name: str) -> dict[str, Tensor]:
    """Queries and keys [batch, heads, tokens, head_dim], drawn as the recipe says."""
    recipe = index("part")["inputs"][name]
    batch, tokens, few, many = recipe["bsz"], recipe["q_len"], recipe["kv_heads"], recipe["query_heads"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe["seed"])
        drawn = {"q": torch.randn(batch, many, tokens, HEAD_DIM) * 1.5}
        for key, heads in {"k4": few, "v4": few, "k8": many}.items():
            drawn[key] = torch.randn(batch, heads, tokens, HEAD_DIM)
    return drawn


@pytest.mark.parametrize("name", INPUT_SHA256)
def test_inputs_are_drawn_as_they_were_for_the_published_code(name: str) -> None:
    digest = hashlib.sha256()
    for key in ("q", "k4", "k8"):
        digest.update(inputs(name)[key].numpy().tobytes())
    assert digest.hexdigest() == INPUT_SHA256[name], (
        f"torch {torch.__version__} draws other numbers: the golden data needs torch 2.13"
    )


@pytest.mark.parametrize("which", [which for which, root in ROOTS.items() if root.is_dir()])
def test_no_golden_case_is_left_out(which: str) -> None:
    assert (len(cases(which)), len(legacy_cases(which)), len(index(which)["errors"])) == COUNTS[which]


# --- a case as this project sees it


def method_of(case: Case, causal: bool = True) -> Method:
    window, kernel, pooling = case["window"], case["kernel"], case["pooling"]
    methods: dict[str, Method] = {
        "SnapKV": SnapKV("snapkv", window, kernel, pooling),
        "PyramidKV": PyramidKV("pyramidkv", window, kernel, pooling, 20, "reference"),
        "H2O": H2O("h2o", window, causal),
        "StreamingLLM": StreamingLLM("streamingllm", None, window),
    }
    return methods[case["method"]]


def selection_of(case: Case, ties: str) -> Selection:
    granularity = "kv_head" if case["kvmode"] == "gqa_kv_head" else "query_head"
    return Selection(granularity, case["agg"] or "mean", ties, "float32" if case["dtype"] == "float32" else "model")  # type: ignore[arg-type]


def states_of(case: Case) -> list[LayerState]:
    """The layer of each row of the case's batch. The first value of an entry is its position."""
    drawn, dtype = inputs(case["input"]), getattr(torch, case["dtype"])
    queries, keys = drawn["q"].to(dtype), drawn["k8" if case["kvmode"] == "mha8" else "k4"].to(dtype)
    position = torch.arange(keys.shape[2], dtype=dtype)[:, None].expand(keys.shape[1:])
    return [LayerState(q, k, position, 0, 1, HEAD_DIM**-0.5, dtype) for q, k in zip(queries, keys, strict=True)]


class Layers:
    """A model that is nothing but attention, with the same queries, keys and values in every layer."""

    device = torch.device("cpu")
    modules = tuple

    def __init__(self, state: LayerState, count: int) -> None:
        self.config = SimpleNamespace(num_hidden_layers=count)
        self._state = state

    def __call__(self, ids: Tensor, **keywords: Any) -> SimpleNamespace:
        for layer in range(self.config.num_hidden_layers):
            keywords[ENGINE].attend(
                layer, self._state.queries[None], self._state.keys[None], self._state.values[None], self._state.scaling
            )
        return SimpleNamespace(logits=torch.zeros(1, 1, 2))


def plan_of(case: Case, causal: bool) -> Plan:
    method = method_of(case, causal)
    return Plan(
        tuple(keep_of(method, case["budget"], inputs(case["input"])["q"].shape[2], case["num_layers"] or 1)),
        method.scorer,
    )


def group_of(case: Case) -> tuple[Any, ...]:
    return tuple(case[key] for key in ("input", "kvmode", "agg", "dtype", "num_layers"))


@lru_cache
def prefilled(which: str, legacy: bool, group: tuple[Any, ...]) -> list[dict[Plan, Kept]]:
    """What a prefill keeps, for each row of the batch, of all cases that can share it."""
    members = [case for case in (legacy_cases if legacy else cases)(which) if group_of(case) == group]
    plans = list({plan_of(case, not legacy) for case in members})
    rows = []
    for state in states_of(members[0]):
        model = cast("PreTrainedModel", Layers(state, members[0]["num_layers"] or 1))
        done = prefill(model, "layers", range(state.keys.shape[1]), plans, selection_of(members[0], "torch"))
        rows.append(dict(zip(plans, done.kept, strict=True)))
    return rows


def check_kept(which: str, case: Case, golden: Any, legacy: bool = False) -> None:
    """A prefill keeps the golden entries, in ascending order, and nothing else."""
    for row, kept in enumerate(prefilled(which, legacy, group_of(case))):
        layer = kept[plan_of(case, not legacy)].layers[case["layer"] or 0].gathered()
        positions = layer.values[:, :, 0].long().numpy()
        keys = inputs(case["input"])["k8" if case["kvmode"] == "mha8" else "k4"][row].to(layer.keys.dtype)
        # A layer that keeps everything keeps it once per kv head, where the published code repeats it for every query
        # head.
        stored_for = len(golden[row]) // len(positions)
        assert stored_for == 1 or positions.shape[1] == keys.shape[1]
        np.testing.assert_array_equal(positions.repeat(stored_for, axis=0), np.sort(golden[row], axis=-1))
        heads = torch.arange(len(positions))[:, None] // (len(positions) // len(keys))
        assert torch.equal(layer.keys, keys[heads, torch.from_numpy(positions)])


# --- equality


@over(cases)
def test_kept_set_equals_the_published_one(which: str, item: Case) -> None:
    golden = arrays(which, "kept_indices.npz")[item["id"]]
    assert golden.shape[-1] == item["out_len"]
    check_kept(which, item, golden)


@over(scored_cases)
def test_stable_choice_differs_from_the_published_one_in_ties_only(which: str, item: Case) -> None:
    for row, state in enumerate(states_of(item)):
        order = order_of(method_of(item).scorer, state, selection_of(item, "stable"))  # type: ignore[arg-type]
        chosen = order.best(item["topk"])
        tied = item["boundary_tie"][row]
        assert int(order.tied_heads(item["topk"])) == sum(tied)
        published = np.sort(arrays(which, "kept_indices.npz")[item["id"]][row][:, : item["topk"]], axis=-1)
        for head, (ours, theirs) in enumerate(zip(chosen, torch.from_numpy(published).long(), strict=True)):
            scores = order.scores[head]
            assert torch.equal(scores[ours].sort().values, scores[theirs].sort().values)
            if not tied[head]:
                assert torch.equal(ours, theirs)
            # Of the candidates that tie at the boundary, those of the lowest indices.
            at_boundary = (scores == scores[ours].min()).nonzero().flatten()
            inside = torch.isin(at_boundary, ours)
            assert inside.tolist() == sorted(inside.tolist(), reverse=True)
            assert (int(inside.sum()) < len(at_boundary)) == tied[head]


def score_keys(which: str) -> list[Case]:
    """One case per vector of scores."""
    stored = arrays(which, "scores.npz")
    by_key = {
        case["score_key"]: {**case, "id": case["score_key"]}
        for case in scored_cases(which)
        if case["score_key"] in stored
    }
    assert by_key.keys() == stored.keys()
    return list(by_key.values())


@over(score_keys)
def test_scores_equal_the_published_ones(which: str, item: Case) -> None:
    golden = arrays(which, "scores.npz")[item["score_key"]]
    epsilon = torch.finfo(getattr(torch, item["dtype"])).eps
    selection = selection_of(item, "torch")
    for row, state in enumerate(states_of(item)):
        scorer = method_of(item).scorer
        assert scorer is not None
        scores = scorer.smooth(group_heads(scorer.score(state), len(state.queries), len(state.keys), selection), state)
        assert scores.dtype == state.score_dtype
        np.testing.assert_allclose(scores.float().numpy(), golden[row], rtol=8 * epsilon, atol=epsilon / 8)


@over(legacy_cases)
def test_paper_era_code_is_reproduced_with_causal_false(which: str, item: Case) -> None:
    check_kept(which, item, arrays(which, LEGACY)[item["id"]], legacy=True)


@over(
    lambda which: [
        case for case in cases(which) if case["method"] == "StreamingLLM" and case["budget"] - case["window"] == 4
    ]
)
def test_four_sinks_equal_the_window_that_the_published_runner_computes(which: str, item: Case) -> None:
    tokens = inputs(item["input"])["q"].shape[2]
    method = StreamingLLM("streamingllm", 4, None)
    keep = keep_of(method, item["budget"], tokens, 1)[0]
    assert keep == item["out_len"]
    for row, state in enumerate(states_of(item)):
        if keep < tokens:
            chosen = order_of(method.scorer, state, selection_of(item, "stable")).best(keep - method.scorer.window)
            kept = torch.cat([chosen, torch.full((len(chosen), 1), tokens - 1)], dim=1).numpy()
            np.testing.assert_array_equal(kept, np.sort(arrays(which, "kept_indices.npz")[item["id"]][row], axis=-1))


@over(error_cases)
def test_published_crash_is_a_budget_error_or_a_documented_repair(which: str, item: Case) -> None:
    method, tokens, budget = method_of(item), inputs(item["input"])["q"].shape[2], item["budget"]
    if item["error"].startswith("ZeroDivisionError"):
        # PyramidKV with one layer: the published code divides by zero, here the one layer gets the budget, as the
        # method's text says.
        assert item["num_layers"] == 1
        assert list(keep_of(method, budget, tokens, 1)) == [budget]
    else:
        with pytest.raises(
            BudgetError, match=r"budget=24 is not above window=32 \(method=\w+\): use budget>=33 or a smaller"
        ):
            keep_of(method, budget, tokens, item["num_layers"] or 8)
