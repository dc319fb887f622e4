"""Colours of methods: one each, the same in every plot."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from harness.report.colours import colour_of
from harness.report.plots import curves
from harness.report.stats.curves import Curve, Curves

METHODS = ("fullkv", "h2o", "pyramidkv", "snapkv", "streamingllm")


def test_the_published_methods_differ_from_each_other_and_from_any_other_label() -> None:
    assert len({colour_of(label) for label in METHODS}) == 5
    assert all(colour_of(f"label{n}") not in {colour_of(label) for label in METHODS} for n in range(50))
    assert len({colour_of(f"label{n}") for n in range(50)}) > 1


@pytest.mark.parametrize("others", [(), ("fullkv", "h2o")])
def test_a_method_has_its_colour_whichever_others_are_drawn(tmp_path: Path, others: tuple[str, ...]) -> None:
    lines = [Curve(label, [64.0, 128.0], [50.0, 60.0], [40.0, 50.0], [60.0, 70.0]) for label in (*others, "snapkv")]
    curves(Curves("budget", "across", lines), "title", "down", tmp_path / "plot.png")
    pixels = imread(tmp_path / "plot.png")[..., :3]
    assert (abs(pixels - to_rgb(colour_of("snapkv"))).max(-1) < 0.01).sum() > 500


def test_values_of_a_knob_have_colours_of_their_own() -> None:
    labels = [f"{method}_w{2**power}" for method in METHODS for power in range(2, 9)]
    assert len({colour_of(label) for label in (*METHODS, *labels)}) == len(METHODS) + len(labels)
