"""The public API of kvgauge, an evaluation harness for KV-cache compression.

Methods, tasks and notebooks of your own import it, in a clone and from an installed wheel alike: ``from kvgauge import
LayerState``. Every name is imported only when it is first used.
"""

from __future__ import annotations

import os
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    # For methods.
    "compression.allocation": ("Allocation", "Counts", "Seen", "Shape", "Uniform"),
    "compression.eviction": ("Entries", "Every", "Evictor"),
    "compression.method": ("Accumulates", "LayerState", "Method", "Reranks", "Scorer", "require_above"),
    "compression.replay": ("Replay", "Replayed", "Replays"),
    "compression.scorers": (
        "ColumnSums",
        "FirstTokens",
        "Kernel",
        "Pooling",
        "Sinks",
        "SinksThenRecent",
        "Window",
        "WindowAttention",
        "column_sums",
        "pool",
        "window_attention",
    ),
    "compression.selection": ("Selection",),
    "compression.wrappers": ("Rescorer", "Wrapper"),
    # For tasks.
    "task": ("Average", "Example", "Metric", "Suite", "Task"),
    # For both.
    "errors": ("BudgetError", "ConfigError", "DataError", "KvgaugeError"),
    "values": ("Refusal", "check"),
    # For notebooks and scripts.
    "api": ("Engine", "Result", "read", "run"),
}
"""The public names by their module below ``harness``."""

_HOME = {name: module for module, names in _MODULES.items() for name in names}
# In a wheel the folder lies inside this package, in a clone beside it.
_HARNESS = f"{__name__}.harness" if os.path.isdir(os.path.join(__path__[0], "harness")) else "harness"

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{_HARNESS}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
