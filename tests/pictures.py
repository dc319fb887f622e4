"""Plots are drawn in tests that look at them; drawing takes longer than all else of a small run's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness.report import plots

_DRAW = plots._save


def told(figure: Figure) -> str:
    """What a figure shows: its size, its texts, and the numbers of its lines, areas and maps."""
    shown: list[object] = [figure.get_size_inches().tolist()]
    shown += [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    for axes in figure.axes:
        shown += [(line.get_xydata().tolist(), line.get_color()) for line in axes.lines]
        areas = [(area.get_patch_transform().transform_path(area.get_path()), area) for area in axes.patches]
        shown += [(outline.vertices.tolist(), area.get_facecolor()) for outline, area in areas]
        shown += [image.get_array().tolist() for image in axes.images]
    return "\n".join(map(repr, shown))


class Pictures:
    """What becomes of a finished figure: a picture, or a file that tells what the picture would show."""

    drawn = False

    def save(self, figure: Figure, path: Path) -> None:
        """In place of ``plots._save``."""
        if self.drawn:
            _DRAW(figure, path)
        else:
            path.write_text(told(figure), encoding="utf-8")


PICTURES = Pictures()


@pytest.fixture(scope="session", autouse=True)
def pictures() -> Iterator[None]:
    """Let every figure be made, and those be drawn that a test with the mark ``pictures`` makes.

    Without it the file of a picture tells what the picture would show, so that the same results still give the same
    bytes and others others. Programs that tests start draw as users' do.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "_save", PICTURES.save)
        yield
