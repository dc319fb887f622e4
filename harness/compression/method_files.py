"""Files of methods: tables with one row per layer and one column per head."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.compression.allocation import Shape
from harness.errors import ConfigError


def read_text(path: str | None, label: str, what: str) -> str:
    """The text of a method's file.

    Args:
        path: the setting ``file``.
        label: the method's label.
        what: what is in it, such as ``scores of heads``.

    Raises:
        ConfigError: the setting is null, or the file cannot be read as a text.
    """
    try:
        return place(path, label, what).read_text(encoding="utf-8")
    except OSError as error:
        raise refusal(path, label, f"cannot be read ({error.strerror})", what) from error
    except UnicodeDecodeError as error:
        raise refusal(path, label, "is no text", what) from error


def place(path: str | None, label: str, what: str) -> Path:
    """Where a method's file is.

    Args:
        path: the setting ``file``.
        label: the method's label.
        what: what is in it.

    Raises:
        ConfigError: the setting is null.
    """
    if path is None:
        raise ConfigError(f"file=null (method={label}): give a file with {what}: method.{label}.file=<path>")
    return Path(path).expanduser()


def refusal(path: str | None, label: str, fact: str, what: str) -> ConfigError:
    """The error for a file that does not hold what it should.

    Args:
        path: the setting ``file``.
        label: the method's label.
        fact: what is wrong, to follow the file.
        what: what it should hold.
    """
    return ConfigError(f"file={path} (method={label}) {fact}: give a file with {what}")


def of_cache(table: Sequence[Sequence[float]], shape: Shape, path: str, by: str) -> int:
    """How many columns of a table belong to one head of the cache: 1, or the query heads of a kv head.

    Args:
        table: one row per layer, with one column per head.
        shape: the model.
        path: the file, for errors.
        by: ``query`` if there is one column per query head, ``kv`` if there is one per kv head.

    Raises:
        ConfigError: the model has other layers or heads.
    """
    heads = shape.heads if by == "query" else shape.kv_heads
    if (len(table), len(table[0])) != (shape.layers, heads):
        raise ConfigError(
            f"file={path} has {len(table)} layers of {len(table[0])} heads, and the model {shape.layers} layers of "
            f"{heads} {by} heads: give the file of this model"
        )
    return max(1, heads // shape.cache_heads)
