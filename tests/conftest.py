"""Fixtures for tests of the whole command."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from harness.cli import main
from tests.clock import work_clock
from tests.once import once, pixels

__all__ = ["once", "pixels", "work_clock"]  # fixtures

# Kernels are interpreted where no CUDA device is. That must be said before triton is imported, which transformers does
# where it is there.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Models here are so small that a second thread costs more than it brings, and golden data has the sums of one.
torch.set_num_threads(1)

# A loaded machine fails no property.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]

# How often the slow tests that kill processes kill them.
KILLS = int(os.environ.get("KVGAUGE_TEST_KILLS", "3"))

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed: pip install -e '.[triton]'"
)


@dataclass(frozen=True)
class Finished:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """What was printed, as one line: where its lines break depends on the lengths of paths."""
        return " ".join(self.out.split())


Command = Callable[..., Finished]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Look for garbage seldom, and never among what was imported: a tenth of the time went there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 10)


@pytest.fixture
def kvgauge(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line in this process. The folders of methods and tasks that it names are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])

    def command(*words: str) -> Finished:
        monkeypatch.setattr(sys, "argv", ["run.py", *words])
        code = 0
        try:
            main.main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return command


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:
    """Four short prompts for ``task=tokens``."""
    prompts = {
        f"p{length}": [0, *((7 * i * i + length) % 1000 + 2 for i in range(length - 1))] for length in (40, 64, 65, 100)
    }
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(prompts))
    return file


@pytest.fixture
def grid(prompts_file: Path) -> tuple[str, ...]:
    """13 cells of 4 prompts, one prompt at a time."""
    return (
        "method=published",
        "budget=[32,48,64]",
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=12",
        "engine.width=1",
    )
