"""What in the values of a configuration would make Hydra call something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HYDRA_KEYS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")
"""Keys that Hydra's own ``instantiate`` would act on instead of passing them as values."""


def calls(values: Mapping[str, Any]) -> Iterator[str]:
    """The paths of Hydra's keys, at any depth."""
    return (path for path, key, _ in entries(values) if key in HYDRA_KEYS)


def entries(values: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Path, key and value of every entry at any depth, containers included; paths are cut to a readable length."""
    waiting: list[tuple[tuple[str, ...], object]] = [((), values)]
    while waiting:
        parent, container = waiting.pop()
        for key, value in (
            container.items()
            if isinstance(container, Mapping)
            else enumerate(container)
            if isinstance(container, list | tuple)
            else ()
        ):
            path = (*parent, str(key)[:40])[:4]
            yield ".".join(path), key, value
            waiting.append((path, value))
