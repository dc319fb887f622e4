"""Golden data of benchmarks: the whole where ``../shared`` is, else the part that the repository holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/benchmarks"
HERE = SHARED.is_dir()
needs_shared = pytest.mark.skipif(not HERE, reason="no ../shared")


def golden(whole: str, part: str) -> Any:
    """The contents of ``shared/benchmarks/<whole>``, or of ``tests/golden/benchmarks/<part>``."""
    file = SHARED / whole if HERE else ROOT / "tests/golden/benchmarks" / part
    return json.loads(file.read_text(encoding="utf-8"))
