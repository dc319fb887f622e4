"""How numbers are rounded: what is missing is a dash."""

from __future__ import annotations

import math

import pytest

from harness.report.format import DASH, counted, interval, number, percent, signed


@pytest.mark.parametrize(
    ("share", "text"),
    [(1, "100.0"), (0.12, "12.0"), (0.0086, "0.86"), (0.0007, "0.07"), (0.00007, "0.007"), (0, "0.00")],
)
def test_small_shares_keep_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


def test_what_is_missing_is_a_dash() -> None:
    assert {number(math.nan, 2), signed(math.nan), interval(math.nan, math.nan), percent(math.nan)} == {DASH}


def test_counts_say_of_how_many_only_where_some_are_missing() -> None:
    assert (counted(3, 3), counted(2, 3)) == ("3", "2 of 3")
