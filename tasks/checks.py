"""Checks of task settings, with uniform error messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from harness.errors import ConfigError


def is_list(value: object) -> TypeGuard[Sequence[object]]:
    """Whether ``value`` is a sequence other than a text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether ``value`` is an integer and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole(value: object, what: str, least: int) -> int:
    """``value``, checked to be an integer.

    Args:
        value: the value.
        what: name of the setting, for the error.
        least: smallest value allowed.

    Raises:
        ConfigError: ``value`` is not an integer, or is below ``least``.
    """
    if not is_whole(value) or value < least:
        raise ConfigError(f"{what} is {short(value)}: use a whole number, {least} or more")
    return value


def short(value: object) -> str:
    """A value for an error message: on one line, at most 120 characters."""
    written = repr(value)
    return written if len(written) <= 120 else f"{written[:117]}..."
