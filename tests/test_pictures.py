"""Plots are drawn where a test looks at them, and told elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.report.plots import curves
from harness.report.stats.curves import Curve, Curves


def written(path: Path, score: float) -> bytes:
    line = Curve("snapkv", [8, 16], [score, 9.0], [1.0, 8.0], [3.0, 10.0])
    curves(Curves("budget", "across", [line]), "title", "down", path)
    return path.read_bytes()


@pytest.mark.pictures
def test_with_the_mark_a_plot_is_a_picture(tmp_path: Path) -> None:
    assert written(tmp_path / "plot.png", 2.0).startswith(b"\x89PNG")


def test_without_it_the_same_numbers_tell_the_same_and_others_others(tmp_path: Path) -> None:
    first, again, other = (written(tmp_path / "plot.png", score) for score in (2.0, 2.0, 2.5))
    assert first == again != other and b"snapkv" in first
