"""Curves of scores: where they stand on the axes, and what is a line across."""

from __future__ import annotations

import math

import pandas as pd

from harness.report.stats.curves import apart, score_curves


def raw(*rows: tuple[str, str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["method", "budget", "retention"])
    return frame.assign(score=50.0, score_low=40.0, score_high=60.0)


def test_budgets_stand_at_their_entries_and_shares_and_the_full_cache_are_lines_across() -> None:
    by_budget, _ = score_curves(raw(("h2o", "64", 0.1), ("h2o", "20%", 0.2), ("fullkv", "full", 1.0)))
    assert {line.label: line.across for line in by_budget.lines} == {"h2o": [64.0, None], "fullkv": [None]}
    assert by_budget.stem == "by_budget"


def test_a_method_that_kept_everything_is_a_line_across_the_retentions() -> None:
    _, by_retention = score_curves(
        raw(("h2o", "64", 0.25), ("h2o", "9999", 1.0), ("fullkv", "full", 1.0), ("tova", "8", math.nan))
    )
    across = {line.label: line.across for line in by_retention.lines}
    assert across["h2o"] == [25.0, 100.0] and across["fullkv"] == [None]
    assert math.isnan(across["tova"][0] or 0.0), "left out: nobody knows where it stands"


def test_a_budget_of_100_entries_is_no_full_cache() -> None:
    by_budget, _ = score_curves(raw(("h2o", "100", 0.1)))
    assert by_budget.lines[0].across == [100.0]


def test_ticks_that_would_overlap_are_left_out() -> None:
    assert apart([64, 65, 128, 64]) == [64, 128]
