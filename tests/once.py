"""What every command of a process does again, done once for a test session; results stay what they are."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from hydra._internal.hydra import Hydra
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from PIL.PngImagePlugin import PngInfo

_draw = Figure.savefig


def _sketch(figure: Figure, path: str | Path, **_: Any) -> None:
    """Write what a figure shows into an image of one pixel."""
    shown = [
        [text.get_text() for text in figure.findobj(Text)],
        [image.get_array() for image in figure.findobj(AxesImage)],
        [(bar.get_bbox().bounds, bar.get_facecolor()) for bar in figure.findobj(Rectangle)],
        [(line.get_xydata(), line.get_color()) for line in figure.findobj(Line2D)],
    ]
    text = PngInfo()
    text.add_text("shown", repr(shown))
    Image.new("L", (1, 1)).save(path, format="png", pnginfo=text)


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let figures be drawn."""
    monkeypatch.setattr(Figure, "savefig", _draw)


@pytest.fixture(scope="session", autouse=True)
def once() -> Iterator[None]:
    """Let Hydra compose a configuration once per command, and each YAML text and template be read once.

    Hydra composes it a first time to look for ``hydra.mode``, which nothing here sets. Programs that tests start have
    both as users do. Drawing the pixels of plots took a third of the time of a command: tests that look at them, and
    programs that tests start, draw them. Nothing waits for the disk, which matters when the power fails.
    """
    mode, compile_template, compiled = Hydra.get_mode, jinja2.Environment.compile, dict[Any, Any]()
    parse, parsed = yaml.load, dict[Any, bytes]()

    def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        named = any(word.lstrip("+").startswith("hydra.mode=") for word in overrides)
        return mode(hydra, config_name, overrides) if named else None

    def compile_once(environment: jinja2.Environment, *words: Any, **named: Any) -> Any:
        key = (words, *named.items())
        if key not in compiled:
            compiled[key] = compile_template(environment, *words, **named)
        return compiled[key]

    def parse_once(stream: Any, Loader: Any) -> Any:
        if not hasattr(stream, "read"):
            return parse(stream, Loader)
        place, text = stream.tell(), stream.read()
        stream.seek(place)  # errors name the file
        if (key := (text, Loader.__qualname__)) not in parsed:
            parsed[key] = pickle.dumps(parse(stream, Loader))
        return pickle.loads(parsed[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Hydra, "get_mode", get_mode)
        patch.setattr(jinja2.Environment, "compile", compile_once)
        patch.setattr(yaml, "load", parse_once)
        patch.setattr(Figure, "savefig", _sketch)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
