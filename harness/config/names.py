"""Names of classes in YAML files and manifests, which say ``methods.snapkv.SnapKV`` in a clone and in a wheel alike.

In a wheel the folders of a clone lie inside the package ``kvgauge``, so Python imports that class as
``kvgauge.methods.snapkv.SnapKV``. Only the clone's name is written down, so that the results of both are the same.
"""

from __future__ import annotations

_PREFIX = __name__.removesuffix("harness.config.names")
"""``kvgauge.`` in a wheel; empty in a clone."""
_FOLDERS = ("harness", "methods", "tasks")


def importable(name: str) -> str:
    """The name to import for a name in a configuration or a manifest; names outside the project stay as they are."""
    return _PREFIX + name if is_own(name) else name


def is_own(name: str) -> bool:
    """Whether a name in a configuration or a manifest is of a class of the project."""
    return name.partition(".")[0] in _FOLDERS


def recorded(kind: type) -> str:
    """The name of a class as it is written into manifests."""
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix(_PREFIX)
