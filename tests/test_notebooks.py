"""Every notebook runs from its first cell to its last, and leaves the figures it speaks of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
# A smaller grid and a shorter prompt than a reader's.
SMALL = {"TOUR_LENGTHS": "[300]", "FUNNEL_TOKENS": "400"}


def run(path: Path, figures: Path, **extra: str) -> str:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "FIGURES": str(figures),
        **extra,
    }
    done = subprocess.run([sys.executable, str(path)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    printed = run(path, tmp_path, **SMALL)
    figure = tmp_path / f"{path.stem}.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert str(figure) in printed
    if path.stem == "needle_tour":
        assert {"fullkv", "streamingllm", "h2o", "snapkv", "pyramidkv"} <= set(printed.split())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_opens_as_one_with_text_and_code(path: Path) -> None:
    cells = jupytext.read(path).cells
    assert {cell.cell_type for cell in cells} == {"markdown", "code"}
    assert cells[0].source.startswith("# ")
