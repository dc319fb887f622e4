"""``import kvgauge``: light, and with every public name."""

from __future__ import annotations

import re
import subprocess
import sys

import kvgauge
from tests.conftest import ROOT

HEAVY = {"harness", "hydra", "matplotlib", "numpy", "omegaconf", "pandas", "rich", "torch", "transformers"}


def test_import_brings_nothing_with_it() -> None:
    code = "import sys; import kvgauge; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_every_public_name_is_there_and_has_its_type() -> None:
    typed = re.findall(r"^from (\S+) import (\w+) as \2$", (ROOT / "kvgauge/__init__.pyi").read_text(), re.MULTILINE)
    assert {"__version__", *(name for _, name in typed)} == set(kvgauge.__all__) == set(dir(kvgauge))
    for module, name in typed:
        assert getattr(kvgauge, name) is getattr(sys.modules[module], name)


def test_the_public_names_are_these() -> None:
    """Each of them is a promise: one that goes or comes is a change for users, and a line of the changelog."""
    assert sorted(kvgauge.__all__) == [
        "Accumulates", "Allocation", "Average", "BudgetError", "ColumnSums", "ConfigError",
        "Counts", "DataError", "Engine", "Entries", "Every", "Evictor", "Example", "FirstTokens",
        "Kernel", "KvgaugeError", "LayerState", "Method", "Metric", "Pooling", "Refusal", "Replay",
        "Replayed", "Replays", "Reranks", "Rescorer", "Result", "Scorer", "Seen", "Selection",
        "Shape", "Sinks", "SinksThenRecent", "Suite", "Task", "Uniform", "Window",
        "WindowAttention", "Wrapper", "__version__", "check", "column_sums", "pool", "read",
        "require_above", "run", "window_attention",
    ]  # fmt: skip


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(kvgauge, "nonsense")


def test_the_version_is_that_of_the_citation() -> None:
    assert f"\nversion: {kvgauge.__version__}\n" in (ROOT / "CITATION.cff").read_text()
