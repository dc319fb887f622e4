"""What ``make setup`` installs fits every Python that the project promises."""

from __future__ import annotations

import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]


def test_every_pinned_version_runs_on_the_oldest_python() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.lower().replace("_", "-") for line in lines if not line.startswith("#")}
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    installed = {
        f"{held.name}=={held.version}".lower().replace("_", "-"): held.metadata["Requires-Python"]
        for held in distributions()
    }
    known = pinned & installed.keys()
    if len(known) < 0.9 * len(pinned):
        pytest.skip(
            f"{len(known)} of {len(pinned)} are installed here in the pinned version, and what the others need is "
            f"not "
            f"known"
        )
    assert [name for name in known if not SpecifierSet(installed[name] or "").contains(oldest)] == []
