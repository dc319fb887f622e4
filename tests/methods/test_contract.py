"""What every method promises, for every file of conf/method: a new one is tested unlisted, and none is named here.

``KVGAUGE_METHOD_PATH=<folder>`` adds the methods of a folder outside the clone.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import re
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from harness.compression.allocation import Shape
from harness.compression.attention_weights import attention_rows
from harness.compression.budget import Budget
from harness.compression.grid import Variant
from harness.compression.method import Accumulates, LayerState, Method, Reranks, Scorer
from harness.compression.selection import Selection, group_heads, kept_indices, order_of, reranked
from harness.config.build import build
from harness.config.catalog import choices
from harness.config.outside import own_folders, search_path_words, use
from harness.engine.keeping import Keeping
from harness.errors import BudgetError, ConfigError
from harness.results import Cell, by_head
from tests.harness.counts import keep_of

CONF = Path(__file__).parents[2] / "conf"
OUTSIDE = own_folders("method", filter(None, [os.environ.get("KVGAUGE_METHOD_PATH")]))
use(OUTSIDE)
TEXTS = {choice.name: choice.text for choice in choices("method", OUTSIDE) if choice.name not in ("all", "published")}
# A method that needs a file has none here, and its tables fit one model: its own tests hold it to its promises.
NEED_A_FILE = [name for name, text in TEXTS.items() if re.search(r"^# needs: .*\bfile\b", text, re.MULTILINE)]
# A method whose scores come from replays has none without a whole model.
REPLAYED = [name for name, text in TEXTS.items() if re.search(r"^# needs: .*\breplay\b", text, re.MULTILINE)]
NAMES = [name for name in TEXTS if name not in (*NEED_A_FILE, *REPLAYED)]
LAYERS = (1, 2, 3, 8, 32, 80)
LONG = 7500

every_method = pytest.mark.parametrize("name", NAMES)
every_file = pytest.mark.parametrize("name", TEXTS)


@functools.cache
def node(name: str) -> DictConfig:
    """The configuration that ``method=<name>`` composes."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        where = search_path_words([f"method_path={folder}" for folder in OUTSIDE])
        chosen: DictConfig = compose("config", [*where, f"method={name}"]).method
    return chosen


def make(name: str) -> Method:
    """The method as the command line makes it."""
    method: Method = build(node(name)[name])
    return method


def text(name: str) -> str:
    """Its YAML file."""
    return TEXTS[name]


def keys(name: str) -> list[str]:
    """The top-level keys of its YAML file."""
    return re.findall(r"^(\w+):", text(name), re.MULTILINE)


def waits(name: str) -> bool:
    """Whether it counts entries only once it has seen layers."""
    return make(name).allocation.sees != "shape"


def skip_if_it_waits(name: str) -> None:
    """Skip a test of numbers that are known before any weight is read."""
    if waits(name):
        pytest.skip("its numbers depend on what layers show")


@functools.cache
def least_budget(name: str) -> int:
    """The smallest budget it obeys for a long prompt."""
    method = make(name)
    for budget in range(1, LONG):
        try:
            method.check_budget(budget)
            if not waits(name):
                keep_of(method, budget, LONG, 8)
        except BudgetError:
            continue
        return budget
    raise AssertionError(f"{name} obeys no budget")


def budgets(name: str) -> list[int]:
    """Budgets around the smallest, those of the published tables, and one that is longer than any prompt here."""
    least = least_budget(name)
    return sorted(
        {least, least + 1, least + 2, 2 * least, *(b for b in (32, 64, 128, 512, 2048) if b > least), LONG + 1}
    )


def prompts(name: str, budget: int) -> list[int]:
    """Prompt lengths around every edge a budget has."""
    window = scorer.window if (scorer := make(name).scorer) is not None else 1
    share = budget - window
    edges = {1, window - 1, window, window + 1, budget - 1, budget, budget + 1, budget + window, LONG}
    edges |= {2 * share + offset for offset in (-1, 0, 1, window)}
    return sorted(tokens for tokens in edges if tokens >= 1)


class ModelParts:
    """Parts of a model of four query heads with eight dimensions."""

    def output_projection(self, layer: int) -> torch.Tensor:
        return torch.randn(4, 8, 16, generator=torch.Generator().manual_seed(layer))

    def rotary(self, layer: int, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        angles = positions[:, None] * 100.0 ** -(torch.arange(4) / 4).repeat(2)
        return angles.cos(), angles.sin()


def layer_state(tokens: int, index: int = 1) -> LayerState:
    """Four query heads, two kv heads."""
    generator = torch.Generator().manual_seed(tokens + 1000 * index)
    queries, keys, values = (torch.randn(heads, tokens, 8, generator=generator) for heads in (4, 2, 2))
    return LayerState(
        queries,
        keys,
        values,
        index=index,
        count=8,
        scaling=8**-0.5,
        score_dtype=torch.float32,
        parts=ModelParts(),
    )


def test_there_are_methods() -> None:
    assert NAMES


# --- how many


@every_method
def test_keep_gives_every_layer_a_number_between_the_window_and_the_prompt(name: str) -> None:
    skip_if_it_waits(name)
    method = make(name)
    for budget in budgets(name):
        for tokens in prompts(name, budget):
            least = min(method.scorer.window if method.scorer is not None else tokens, tokens)
            for layers in LAYERS:
                keep = keep_of(method, budget, tokens, layers)
                assert len(keep) == layers, (budget, tokens, layers)
                assert all(type(entries) is int and least <= entries <= tokens for entries in keep), (
                    budget,
                    tokens,
                    layers,
                    keep,
                )


@every_method
def test_a_budget_of_the_prompt_or_more_keeps_everything(name: str) -> None:
    skip_if_it_waits(name)
    method, least = make(name), least_budget(name)
    for tokens in {1, max(1, least - 1), least, 100, LONG}:
        for budget in {max(least, tokens), max(least, tokens) + 1, max(least, 2 * tokens)}:
            for layers in LAYERS:
                assert list(keep_of(method, budget, tokens, layers)) == [tokens] * layers, (budget, tokens, layers)


@every_method
def test_the_mean_over_layers_obeys_the_budget_or_the_yaml_says_that_it_does_not(name: str) -> None:
    skip_if_it_waits(name)
    method = make(name)
    if not method.uses_budget or re.search(r"^#.*\bexceeds budget\b", text(name), re.MULTILINE):
        return
    for budget in budgets(name):
        for tokens in prompts(name, budget):
            for layers in LAYERS:
                keep = keep_of(method, budget, tokens, layers)
                assert sum(keep) <= budget * layers, (budget, tokens, layers, keep)


@every_method
def test_keep_depends_on_nothing_but_its_arguments(name: str) -> None:
    skip_if_it_waits(name)
    method, budget = make(name), least_budget(name) + 20
    first = list(keep_of(method, budget, LONG, 8))
    keep_of(method, budget + 7, 100, 3)
    assert list(keep_of(method, budget, LONG, 8)) == first == list(keep_of(make(name), budget, LONG, 8))


@every_method
@pytest.mark.parametrize("tokens", [1, 100])
def test_a_budget_of_1_is_refused_where_there_is_a_window(name: str, tokens: int) -> None:
    method = make(name)
    if method.scorer is None:
        assert list(keep_of(method, 1, tokens, 8)) == [tokens] * 8
        return
    if not method.uses_budget or (method.scorer.window == 0 and least_budget(name) == 1):
        method.check_budget(1)
        return
    with pytest.raises(BudgetError, match=rf"^budget=1 is not .*method={name}.*: use ") as refused:
        keep_of(method, 1, tokens, 8)
    assert "\n" not in str(refused.value)


@every_method
def test_once_a_budget_is_obeyed_every_larger_one_is(name: str) -> None:
    skip_if_it_waits(name)
    method, least = make(name), least_budget(name)
    for budget in range(least, least + 200):
        keep_of(method, budget, LONG, 8)
    for budget in range(1, least):
        with pytest.raises(BudgetError):
            keep_of(method, budget, LONG, 8)


# --- which


@every_method
def test_scorers_are_frozen_and_equal_for_equal_knobs(name: str) -> None:
    first, second = make(name), make(name)
    assert first == second
    assert hash(first) == hash(second)
    for thing in (first, first.scorer):
        if thing is not None:
            assert is_dataclass(thing)
            assert type(thing).__dataclass_params__.frozen, f"{type(thing).__name__} is not frozen"  # type: ignore[attr-defined]
    assert first.scorer == second.scorer == first.scorer
    assert hash(first.scorer) == hash(second.scorer)


@every_method
@pytest.mark.parametrize("granularity", ["query_head", "kv_head"])
def test_a_scorer_scores_every_candidate_and_any_number_of_them_can_be_kept(name: str, granularity: Any) -> None:
    scorer: Scorer | None = make(name).scorer
    if scorer is None:
        return
    tokens, heads = scorer.window + 30, 4 if granularity == "query_head" else 2
    layer = layer_state(tokens)
    selection = Selection(granularity, "mean", "stable", "float32")
    raw = scorer.score(layer)
    assert raw.shape in {(4, 30), (2, 30), (1, 30)}
    assert torch.isfinite(raw).all()
    smoothed = scorer.smooth(group_heads(raw, 4, 2, selection), layer)
    assert smoothed.shape[0] == heads
    assert torch.isfinite(smoothed).all()
    order = order_of(scorer, layer, selection)
    for keep in (max(1, scorer.window), scorer.window + 1, tokens - 1, tokens):
        if isinstance(scorer, Reranks):
            order = reranked(scorer, order, layer, torch.full((heads,), keep - scorer.window))
            assert torch.isfinite(order.scores).all()
        kept = kept_indices(order, keep, scorer.window, tokens, heads, torch.device("cpu"))
        assert kept.shape == (heads, keep)
        assert (kept.diff(dim=1) > 0).all(), "an entry is kept twice"
        assert kept.min() >= 0
        assert (kept[:, keep - scorer.window :] == torch.arange(tokens - scorer.window, tokens)).all(), (
            "the window is not kept"
        )


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scored_in", ["float32", "model"])
def test_a_model_in_half_precision_has_finite_scores(name: str, dtype: torch.dtype, scored_in: Any) -> None:
    scorer = make(name).scorer
    if scorer is None:
        return
    layer = layer_state(scorer.window + 70)
    layer = replace(
        layer,
        queries=layer.queries.to(dtype),
        keys=layer.keys.to(dtype),
        values=layer.values.to(dtype),
        score_dtype=dtype if scored_in == "model" else torch.float32,
    )
    order = order_of(scorer, layer, Selection("kv_head", "mean", "stable", scored_in))
    if isinstance(scorer, Reranks):
        order = reranked(scorer, order, layer, torch.tensor([9, 9]))
    assert torch.isfinite(order.scores).all()


@every_method
def test_a_scorer_changes_no_state_and_scores_alike_twice(name: str) -> None:
    scorer = make(name).scorer
    if scorer is None:
        return
    tokens = scorer.window + 70
    layer, again = layer_state(tokens), layer_state(tokens)
    selection = Selection("kv_head", "mean", "stable", "float32")
    first, second = (order_of(scorer, layer, selection).scores for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(layer.queries, again.queries)
    assert torch.equal(layer.keys, again.keys)
    assert torch.equal(layer.values, again.values)


@every_method
def test_weights_read_from_the_prefill_give_the_scores_that_are_computed_alone(name: str) -> None:
    scorer, layer = make(name).scorer, layer_state(70)
    reader = scorer.accumulator(layer) if isinstance(scorer, Accumulates) else None
    if scorer is None or reader is None:
        return
    for _, _, weights in attention_rows(layer.queries, layer.keys, layer.softmax, block_bytes=2**14):
        reader.read(weights)
    torch.testing.assert_close(reader.scores(), scorer.score(layer))


@every_method
@pytest.mark.parametrize("tokens", [1, 2, 5, 40, 130])
@pytest.mark.parametrize("granularity", ["query_head", "kv_head"])
def test_a_prompt_of_any_length_keeps_what_its_plan_says(name: str, tokens: int, granularity: Any) -> None:
    """The engine's own selection, on layers of random numbers."""
    method, layers, heads = make(name), 4, 4 if granularity == "query_head" else 2
    least = least_budget(name)
    budgets = [Budget(str(budget), tokens=budget) for budget in (least, least + 7, 1000)]
    shape = Shape(tokens, layers, heads=4, kv_heads=2, cache_heads=heads)
    plans = [Variant(Cell(name, budget.text), method, budget).plan(shape) for budget in budgets]
    keeping = Keeping(plans, Selection(granularity, "mean", "stable", "float32"))
    for index in range(layers):
        keeping.take(replace(layer_state(tokens, index), count=layers), {})
    keeping.end()
    for plan in plans:
        growing = keeping.growing[plan]
        assert len(growing.entries) == layers
        total = 0
        for entries, layer in zip(growing.entries, growing.layers, strict=True):
            each = by_head(entries)
            assert all(1 <= count <= tokens for count in each)
            stored = sum(heads * count for heads, count in layer.gathered().runs)
            total += stored
            of_whole = 2 if method.evictor is None else heads  # which each go on by themselves
            assert stored == (sum(each) if len(each) > 1 else each[0] * (of_whole if each[0] == tokens else heads))
        assert total <= plan.total(shape)


# --- files


@pytest.mark.parametrize("name", NEED_A_FILE)
def test_a_method_without_the_file_that_it_needs_says_which_setting_names_it(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"=null .*method={name}.*method\.{name}\.\w+=") as refused:
        make(name)
    assert "\n" not in str(refused.value)


# --- knobs


@every_method
def test_the_label_is_the_stem_of_the_file_and_the_header_puts_it_there(name: str) -> None:
    assert text(name).startswith(f"# @package method.{name}\n")
    assert list(node(name)) == [name]
    assert make(name).label == name


@every_method
def test_every_field_is_in_the_yaml_and_every_key_is_a_field(name: str) -> None:
    # A wrapper's setting ``scorer`` is its field ``base``: a method's ``scorer`` is what it scores with.
    names = [{"base": "scorer"}.get(field.name, field.name) for field in fields(make(name))]  # type: ignore[arg-type]
    assert keys(name) == ["_target_", *names]
    assert set(node(name)[name]) == {"_target_", *names}


@every_method
def test_dataclasses_carry_no_second_set_of_defaults(name: str) -> None:
    for field in fields(make(name)):  # type: ignore[arg-type]
        assert field.default is MISSING, field.name
        assert field.default_factory is MISSING, field.name


@every_file
def test_every_knob_has_a_comment_above_it(name: str) -> None:
    lines = text(name).splitlines()
    for knob in keys(name):
        if knob not in ("_target_", "label"):
            (place,) = (number for number, line in enumerate(lines) if line.startswith(f"{knob}:"))
            assert re.match(r"# \S", lines[place - 1]), f"{knob} has no comment above it"


@every_method
def test_the_module_opens_with_its_claim_and_what_differs(name: str) -> None:
    module = inspect.getmodule(type(make(name)))
    assert module is not None
    assert re.search(r"^Claim: ", module.__doc__ or "", re.MULTILINE)
    assert re.search(r"^Differs:", module.__doc__ or "", re.MULTILINE)


@every_method
def test_methods_do_not_import_each_other(name: str) -> None:
    module = inspect.getmodule(type(make(name)))
    assert module is not None
    for statement in ast.walk(ast.parse(inspect.getsource(module))):
        imported = [statement.module or ""] if isinstance(statement, ast.ImportFrom) else []
        imported += [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
        assert not [each for each in imported if each.split(".")[0] in ("methods", "tasks")], ast.unparse(statement)
