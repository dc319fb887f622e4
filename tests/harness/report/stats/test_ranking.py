"""Methods over several tasks at equal retention: interpolated, paired, and only ranked where they can be compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from harness.report.stats.ranking import Ranking, rank
from harness.results import Cell, CellResult, Record, TaskResult
from harness.task import Metric

EXACT = Metric("exact", "exact match", 1.0)


def record(example: int, score: float, retention: float, prompt: int = 1000) -> Record:
    return Record(
        f"e{example}", {}, (), {}, prompt, "", tokens=(1,), text="x", scores={"exact": score}, retention=retention
    )


def task(name: str, cells: Mapping[tuple[str, str], tuple[Sequence[float], float]]) -> TaskResult:
    """A task from the scores of its examples and the retention, by method and budget."""
    return TaskResult(
        "m",
        name,
        (EXACT,),
        None,
        "",
        tuple(
            CellResult(Cell(*cell), len(scores), tuple(record(i, score, retention) for i, score in enumerate(scores)))
            for cell, (scores, retention) in cells.items()
        ),
        None,
    )


def at(ranking: Ranking, method: str, retention: float, column: str = "score", group: str = "") -> float:
    rows = ranking.scores
    (value,) = rows[(rows["method"] == method) & (rows["retention"] == retention) & (rows["group"] == group)][column]
    return float(value)


def reaches(ranking: Ranking) -> dict[str, tuple[float, ...] | None]:
    return {
        method: None if reach is None else tuple(round(share, 6) for share in reach)
        for method, reach in ranking.reaches.items()
    }


FULL = {("fullkv", "full"): ([1.0] * 6, 1.0)}
LOW, HIGH = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]


def test_a_score_between_two_budgets_is_interpolated_on_the_logarithm_of_retention() -> None:
    ranking = rank({"t": [task("t", FULL | {("a", "10%"): (LOW, 0.1), ("a", "40%"): (HIGH, 0.4)})]}, [0.1, 0.2, 0.4])
    low, high = 100 / 6, 300 / 6
    assert at(ranking, "a", 0.1) == pytest.approx(low) and at(ranking, "a", 0.4) == pytest.approx(high)
    assert at(ranking, "a", 0.2) == pytest.approx((low + high) / 2), "0.2 is halfway from 0.1 to 0.4 on that axis"
    assert at(ranking, "a", 0.2, "difference") == pytest.approx((low + high) / 2 - 100)


def test_methods_are_held_at_what_they_kept_and_not_at_their_budgets() -> None:
    cells = {("a", "10%"): (HIGH, 0.2), ("a", "5%"): (LOW, 0.1), ("b", "10%"): (LOW, 0.1), ("b", "20%"): (HIGH, 0.2)}
    ranking = rank({"t": [task("t", FULL | cells)]}, [0.1, 0.2])
    for retention in (0.1, 0.2):
        assert at(ranking, "a", retention) == at(ranking, "b", retention)


def test_a_retention_beyond_a_methods_budgets_is_missing_and_ranks_nobody() -> None:
    cells = {
        ("a", "10%"): (HIGH, 0.1), ("a", "40%"): (HIGH, 0.4),
        ("b", "10%"): (LOW, 0.15), ("b", "40%"): (LOW, 0.4),
        ("c", "80%"): (HIGH, 0.8),
    }  # fmt: skip
    ranking = rank({"t": [task("t", FULL | cells)]}, [0.1, 0.2, 0.4])
    assert math.isnan(at(ranking, "b", 0.1))
    assert ranking.compared == [0.2, 0.4]
    assert ranking.methods == ["a", "b", "c"] and set(ranking.means) == {"a", "b"}, "c reaches no retention"
    assert reaches(ranking) == {"a": (0.1, 0.4), "b": (0.15, 0.4), "c": (0.8, 0.8)}


def test_a_share_that_was_rounded_to_whole_entries_still_reaches_its_retention() -> None:
    cells = {("a", "10%"): (HIGH, 0.1004), ("a", "40%"): (HIGH, 0.3996)}
    ranking = rank({"t": [task("t", FULL | cells)]}, [0.1, 0.4])
    assert ranking.compared == [0.1, 0.4]
    strict = rank({"t": [task("t", FULL | {("a", "10%"): (HIGH, 0.102), ("a", "40%"): (HIGH, 0.4)})]}, [0.1])
    assert strict.compared == [], "two entries of 1,000 are no rounding"


def test_a_suite_counts_once_and_a_method_without_one_of_its_tasks_has_no_rank() -> None:
    good, poor = {("a", "10%"): (HIGH, 0.1)}, {("a", "10%"): (LOW, 0.1)}
    ranking = rank({"suite": [task("s1", FULL | good), task("s2", FULL | poor)], "t": [task("t", FULL | good)]}, [0.1])
    assert at(ranking, "a", 0.1, group="suite") == pytest.approx(200 / 6)
    assert at(ranking, "a", 0.1) == pytest.approx((200 / 6 + 50) / 2)
    lacking = rank({"t": [task("t", FULL | good)], "u": [task("u", FULL | {("b", "10%"): (LOW, 0.1)})]}, [0.1])
    assert lacking.means == {} and lacking.reaches == {"a": None, "b": None}
    apart = rank({"t": [task("t", FULL | good)], "u": [task("u", FULL | {("a", "20%"): (LOW, 0.2)})]}, [0.1])
    assert apart.reaches == {"a": None}
    wide = {("a", "20%"): (LOW, 0.2), ("a", "5%"): (LOW, 0.05)}
    both = rank({"t": [task("t", FULL | good)], "u": [task("u", FULL | wide)]}, [0.1])
    assert reaches(both) == {"a": (0.1, 0.1)}


def test_differences_are_paired_with_the_full_cache() -> None:
    full = {("fullkv", "full"): ([1.0, 0.0] * 10, 1.0)}
    same = {("a", "10%"): ([1.0, 0.0] * 10, 0.1)}
    ranking = rank({"t": [task("t", full | same)]}, [0.1])
    assert at(ranking, "a", 0.1, "score_high") > at(ranking, "a", 0.1, "score_low")
    assert at(ranking, "a", 0.1, "difference_low") == at(ranking, "a", 0.1, "difference_high") == 0
    assert ranking.full[""][0] == 50 and ranking.examples == {"t": 20}


def test_differences_to_another_method_are_paired_and_at_the_same_retention() -> None:
    cells = {
        ("dice", "10%"): ([1.0, 0.0] * 10, 0.1), ("dice", "40%"): ([1.0, 1.0] * 10, 0.4),
        ("a", "20%"): ([1.0, 0.0] * 10, 0.2), ("a", "40%"): ([1.0, 1.0] * 10, 0.4),
    }  # fmt: skip
    ranking = rank({"t": [task("t", {("fullkv", "full"): ([1.0] * 20, 1.0)} | cells)]}, [0.2, 0.4], "dice")
    assert ranking.against == "dice"
    assert at(ranking, "a", 0.2, "gain") == pytest.approx(50 - 75), "dice is interpolated between its two budgets"
    low, high = at(ranking, "a", 0.2, "gain_low"), at(ranking, "a", 0.2, "gain_high")
    assert low < at(ranking, "a", 0.2, "gain") < high
    assert at(ranking, "a", 0.4, "gain_low") == at(ranking, "a", 0.4, "gain_high") == 0, "equal in every example"
    assert math.isnan(at(ranking, "dice", 0.4, "gain")), "nobody is held against itself"
    assert rank({"t": [task("t", FULL | {("a", "10%"): (LOW, 0.1)})]}, [0.1], "dice").against == ""


def test_an_odd_method_takes_no_retention_from_the_others() -> None:
    cells: dict[tuple[str, str], tuple[Sequence[float], float]] = {}
    for place in range(10):
        cells |= {(f"m{place}", "10%"): (LOW, 0.1), (f"m{place}", "40%"): (HIGH, 0.4)}
    one = {("odd", "40%"): (HIGH, 0.4)}
    ranking = rank({"t": [task("t", FULL | cells | one)]}, [0.1, 0.4])
    assert ranking.compared == [0.1, 0.4] and "odd" not in ranking.means and ranking.methods[-1] == "odd"
    few = {cell: of for cell, of in cells.items() if cell[0] in ("m0", "m1")}
    ranking = rank({"t": [task("t", FULL | few | one)]}, [0.1, 0.4])
    assert ranking.compared == [0.4] and set(ranking.means) == {"m0", "m1", "odd"}
    apart = {("a", "10%"): (LOW, 0.1), ("b", "10%"): (LOW, 0.1), ("c", "40%"): (HIGH, 0.4)}
    assert rank({"t": [task("t", FULL | apart)]}, [0.1, 0.4]).means.keys() == {"a", "b"}


def test_a_result_that_is_missing_is_counted() -> None:
    cells = {("a", "10%"): (LOW, 0.1), ("a", "40%"): (HIGH[:4], 0.4), ("b", "10%"): (LOW, 0.1)}
    ranking = rank({"t": [task("t", FULL | cells)], "u": [task("u", FULL | cells)]}, [0.1])
    assert at(ranking, "a", 0.1, "n") == 8 and at(ranking, "b", 0.1, "n", "t") == 6
