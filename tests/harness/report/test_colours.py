"""Colours of methods: one each, the same in every plot."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from harness.report.colours import MANY, MARKS, colour_of, marks
from harness.report.page.charts import chart
from harness.report.plots import curves
from harness.report.stats.curves import Curve, Curves

METHODS = ("fullkv", "h2o", "pyramidkv", "snapkv", "streamingllm")


def test_the_published_methods_differ_from_each_other_and_from_any_other_label() -> None:
    assert len({colour_of(label) for label in METHODS}) == 5
    assert all(colour_of(f"label{n}") not in {colour_of(label) for label in METHODS} for n in range(50))
    assert len({colour_of(f"label{n}") for n in range(50)}) > 1


@pytest.mark.usefixtures("pixels")
@pytest.mark.parametrize("others", [(), ("fullkv", "h2o")])
def test_a_method_has_its_colour_whichever_others_are_drawn(tmp_path: Path, others: tuple[str, ...]) -> None:
    lines = [Curve(label, [64.0, 128.0], [50.0, 60.0], [40.0, 50.0], [60.0, 70.0]) for label in (*others, "snapkv")]
    curves(Curves("budget", "across", lines), "title", "down", tmp_path / "plot.png")
    pixels = imread(tmp_path / "plot.png")[..., :3]
    assert (abs(pixels - to_rgb(colour_of("snapkv"))).max(-1) < 0.01).sum() > 500


def test_values_of_a_knob_have_colours_of_their_own() -> None:
    labels = [f"{method}_w{2**power}" for method in METHODS for power in range(2, 9)]
    assert len({colour_of(label) for label in (*METHODS, *labels)}) == len(METHODS) + len(labels)


def test_methods_of_one_colour_have_other_marks() -> None:
    assert marks(METHODS) == [0, 1, 2, 3, 4], "in turn, where colours differ"
    labels = [f"label{n}" for n in range(40)]
    seen: dict[str, set[int]] = {}
    for label, mark in zip(labels, marks(labels), strict=True):
        seen.setdefault(colour_of(label), set()).add(mark)
    of = [colour_of(label) for label in labels]
    assert all(len(given) == min(MARKS, of.count(colour)) for colour, given in seen.items())


@pytest.mark.usefixtures("pixels")
@pytest.mark.parametrize("count", [MANY - 1, MANY])
def test_many_curves_are_drawn_without_what_would_hide_them(tmp_path: Path, count: int) -> None:
    lines = [Curve(f"m{n}", [64.0, None], [50.0, 60.0 + n], [1.0, 1.0], [99.0, 99.0]) for n in range(count)]
    drawn = Curves("budget", "across", [Curve("fullkv", [None], [90.0], [80.0], [99.0]), *lines])
    on_page = chart(drawn, "score")
    assert on_page is not None and on_page.many == (count == MANY)
    assert [len(series.across) for series in on_page.series] == [1] + [0 if on_page.many else 1] * count
    assert all(series.points[0].low is not None for series in on_page.series[1:]), "shown when it is in front"
    curves(drawn, "title", "down", tmp_path / "plot.png")
    pixels = imread(tmp_path / "plot.png")[..., :3]
    white = (pixels > 0.99).all(-1).mean()
    assert (white > 0.8) == on_page.many, "bands cover the plot of few"
