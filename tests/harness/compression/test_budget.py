"""Budgets: what is accepted, what it means, and what is refused with a remedy."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compression.budget import FULL, OWN, parse_budget, parse_budgets
from harness.errors import ConfigError
from harness.report.document import budget_size

REPEATABLE = settings(deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    ("value", "text", "entries"),
    [
        (128, "128", 128),
        (1, "1", 1),
        ("128", "128", 128),
        (" 0128 ", "128", 128),
        ("+64", "64", 64),
        ("12%", "12%", 120),
        ("12.0 %", "12%", 120),
        ("012%", "12%", 120),
        ("12.50%", "12.5%", 125),
        ("0.1%", "0.1%", 1),
        ("0.001%", "0.001%", 1),
        ("100%", "100%", 1000),
        ("full", "full", 1000),
        (" full ", "full", 1000),
        (5000, "5000", 5000),
    ],
)
def test_budget_has_one_spelling_and_means_so_many_entries_of_1000_tokens(
    value: object, text: str, entries: int
) -> None:
    budget = parse_budget(value)
    assert (budget.text, budget.entries(1000)) == (text, entries)
    assert parse_budget(budget.text) == budget


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "budget=0 is below 1 entry"),
        ("0", "budget=0 is below 1 entry"),
        (-5, "budget=-5 is below 1 entry"),
        ("-5", "budget=-5 is below 1 entry"),
        (1.0, "budget=1.0 could mean 1 entries or 100 % of the prompt: write budget=1 or budget=100%"),
        (128.0, "write budget=128 or a share such as budget=12%"),
        (0.12, "budget=0.12 could mean 0.12 entries or 12 % of the prompt: write whole entries or budget=12%"),
        (0.0, "budget=0.0 could mean"),
        (-0.5, "budget=-0.5 could mean"),
        (1.5, "budget=1.5 could mean"),
        (float("nan"), "budget=nan could mean"),
        (float("inf"), "budget=inf could mean"),
        ("130%", "budget=130% is outside 0-100 %"),
        ("100.01%", "is outside 0-100 %"),
        ("0%", "budget=0% is outside 0-100 %"),
        ("-3%", "budget=-3% is outside 0-100 %"),
        ("abc", "budget=abc is not a budget"),
        ("", "budget= is not a budget"),
        ("%", "budget=% is not a budget"),
        ("12 percent", "is not a budget"),
        ("12%%", "is not a budget"),
        ("0.12", "budget=0.12 is not a budget"),
        ("1e3", "is not a budget"),
        ("1_000", "is not a budget"),
        ("１２", "is not a budget"),
        ("Full", "budget=Full is not a budget"),
        ("nan%", "is not a budget"),
        (None, "budget=None is not a budget"),
        (True, "budget=True is not a budget"),
        (False, "budget=False is not a budget"),
        ({"tokens": 5}, "is not a budget"),
    ],
)
def test_what_is_no_budget_is_refused_in_one_line_with_a_remedy(value: object, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_budget(value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "use entries" in str(caught.value) or "write " in str(caught.value)


def test_list_keeps_its_order_and_names_each_budget_once() -> None:
    budgets = parse_budgets([128, "12%", 64, "0128", "12.0%", "full", "full"])
    assert [budget.text for budget in budgets] == ["128", "12%", "64", "full"]
    assert budgets[3] == FULL


@pytest.mark.parametrize("value", [128, "12%", "full"])
def test_one_budget_is_a_list_of_one(value: object) -> None:
    assert parse_budgets(value) == parse_budgets((value,)) == (parse_budget(value),)


@pytest.mark.parametrize("value", [[], (), [[]], [64, [128]], [64, None], [64, 1.0], [True], None, True, "64,128"])
def test_list_with_anything_else_in_it_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="budget="):
        parse_budgets(value)


def test_empty_list_says_so() -> None:
    with pytest.raises(ConfigError, match=r"budget=\[\] names no budget: use entries"):
        parse_budgets([])


def test_share_is_exact_and_rounds_half_to_even_as_the_published_runner() -> None:
    assert parse_budget("12%").share == Fraction(12, 100)
    assert (
        [parse_budget("50%").entries(tokens) for tokens in (1, 3, 5, 7)]
        == [1, round(1.5), round(2.5), round(3.5)]
        == [1, 2, 2, 4]
    )
    # 0.1 has no exact float: 0.145 * 100 is 14.499999999999998.
    assert parse_budget("14.5%").entries(100) == 14
    assert parse_budget("14.5%").entries(300) == 44


@given(share=st.integers(1, 10_000), tokens=st.integers(1, 200_000))
@REPEATABLE
def test_share_lies_between_one_entry_and_the_prompt_and_never_a_whole_entry_off(share: int, tokens: int) -> None:
    budget = parse_budget(f"{share // 100}.{share % 100:02d}%")
    entries = budget.entries(tokens)
    assert 1 <= entries <= tokens
    assert abs(entries - Fraction(share, 10_000) * tokens) <= Fraction(1, 2) or entries == 1
    assert parse_budget(budget.text) == budget


@given(
    value=st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers(-3, 3) | st.text())
)
@REPEATABLE
def test_no_value_raises_anything_but_a_config_error(value: Any) -> None:
    try:
        budgets = parse_budgets(value)
    except ConfigError:
        pass
    else:
        assert all(budget.entries(77) >= 1 for budget in budgets)
        assert len({budget.text for budget in budgets}) == len(budgets)


@pytest.mark.parametrize("value", ["9" * 5000, "1\n2", "9" * 5000 + "%"])
def test_a_hostile_budget_is_one_short_line(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_budget(value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_own_stands_in_records_for_a_method_without_a_budget_and_nobody_can_ask_for_it() -> None:
    assert parse_budget("own") == OWN
    assert OWN.entries(1000) == 1000
    with pytest.raises(ConfigError, match="budget=own comes by itself with methods that have no budget, such as dms"):
        parse_budgets(["64", "own"])


def test_own_is_sorted_between_shares_and_the_full_cache() -> None:
    texts = ["full", "own", "12%", "64", "100%", "1024"]
    assert sorted(texts, key=lambda text: parse_budget(text).rank) == ["64", "1024", "12%", "100%", "own", "full"]
    assert sorted(texts, key=lambda text: budget_size(text) or 0) == ["64", "1024", "12%", "100%", "own", "full"]
