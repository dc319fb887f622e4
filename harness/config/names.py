"""Where a class lies that YAML or a manifest names: they say ``methods.snapkv.SnapKV``, in a clone and in a wheel alike.

In a wheel the folders of a clone lie inside the package ``kvgauge``, so that Python finds that class as
``kvgauge.methods.snapkv.SnapKV``. What is written down is the clone's name: results of both are the same.
"""

from __future__ import annotations

_PREFIX = __name__.removesuffix("harness.config.names")
"""``kvgauge.`` in a wheel; empty in a clone."""
_FOLDERS = ("harness", "methods", "tasks")


def importable(name: str) -> str:
    """The name by which Python finds what a configuration or a manifest names; names of others stay as they are."""
    return _PREFIX + name if name.partition(".")[0] in _FOLDERS else name


def recorded(kind: type) -> str:
    """The name of a class as manifests have it."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(_PREFIX)
