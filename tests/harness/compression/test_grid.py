"""The grid: what a variant keeps of a prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compression.allocation import Shape
from harness.compression.budget import parse_budget, parse_budgets
from harness.compression.grid import Plan, Variant, make_grid
from harness.errors import BudgetError
from harness.results import Cell
from methods.adakv import AdaKV
from methods.dms import DMS
from methods.fullkv import FullKV
from methods.snapkv import SnapKV
from tests.conftest import Command
from tests.harness.folders import cells, records
from tests.harness.tiny import methods

METHODS = methods(window=8)


@pytest.mark.parametrize("tokens", [1, 2, 7, 8, 9, 100])
@pytest.mark.parametrize("budget", ["full", "100%", "99.9%"])
@pytest.mark.parametrize("name", METHODS)
def test_the_whole_prompt_is_the_whole_prompt_for_every_method_and_every_length(
    name: str, budget: str, tokens: int
) -> None:
    variant = Variant(Cell(name, budget), METHODS[name], parse_budget(budget))
    assert variant.plan(Shape(tokens, 3)) == Plan((tokens,) * 3, None)


def test_a_share_that_leaves_the_window_alone_is_still_refused_for_that_prompt() -> None:
    variant = Variant(Cell("snapkv", "50%"), METHODS["snapkv"], parse_budget("50%"))
    with pytest.raises(BudgetError, match="50% of a prompt of 16 tokens"):
        variant.plan(Shape(16, 3))


def test_prompts_of_at_most_the_window_have_a_result_at_full_and_at_100_percent(
    kvgauge: Command, tmp_path: Path
) -> None:
    (tmp_path / "prompts.json").write_text('{"short": [0, 5, 9], "of the window": [0, 5, 6, 7, 8, 9, 10, 11]}')
    done = kvgauge(
        "method=[snapkv,streamingllm]", "budget=[10,full,100%]", "task=tokens", "task.max_new_tokens=3",
        f"task.prompts={tmp_path / 'prompts.json'}", f"results_dir={tmp_path / 'results'}",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = {name: records(cell) for name, cell in cells(tmp_path / "results").items()}
    assert len(found) == 6 and all(record["error"] is None for of in found.values() for record in of)
    assert all(set(record["kept"]) == {record["prompt_tokens"]} for of in found.values() for record in of)


def test_a_method_without_a_budget_is_one_cell_that_says_whether_it_drops_entries() -> None:
    snapkv = SnapKV("snapkv", 8, 7, "maxpool")
    grid = make_grid([FullKV("fullkv"), DMS("dms", snapkv, 0.01, 8), snapkv], parse_budgets([32, "12%"]))
    assert [variant.cell.name for variant in grid] == ["fullkv-full", "dms-own", "snapkv-32", "snapkv-12%"]


@pytest.mark.parametrize("tokens", [1, 7, 8])
def test_a_prompt_no_longer_than_the_window_is_kept_whole_by_whatever_sees_layers(tokens: int) -> None:
    snapkv = SnapKV("snapkv", 8, 7, "maxpool")
    for method in (DMS("dms", snapkv, 0.01, 8), AdaKV("adakv", snapkv, 0.2, True, 0)):
        (variant,) = make_grid([method], parse_budgets([32]))
        assert variant.plan(Shape(tokens, 3, 4, 2, 2)) == Plan((tokens,) * 3, None)
