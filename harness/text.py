"""Text as it may be shown."""

from __future__ import annotations

import re

from harness.errors import ConfigError


def plain(text: str) -> str:
    """``text`` on one line, without characters that move a cursor, change colours or reverse the reading direction."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""Regular expression of what can name a folder on every system, and cannot leave the folder it is put in."""
_RESERVED = ("report", "published")


def check_name(value: object, setting: str) -> str:
    """``value``, if it can name a folder on every system and cannot leave the folder it is put in.

    Args:
        value: from the configuration.
        setting: where it comes from, for the message: ``model.name``.

    Raises:
        ConfigError: it is no text, or holds anything but letters, digits, '.', '_' and '-', or does not begin with a
            letter or digit.
    """
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
        raise ConfigError(
            f"{setting}={shown} cannot name a folder: use at most 128 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return value


def check_model_name(value: object, setting: str) -> str:
    """``value``, if it can name a model's folder in the results.

    Raises:
        ConfigError: as ``check_name``, or it is the name of another folder there.
    """
    name = check_name(value, setting)
    if name in _RESERVED:
        raise ConfigError(f"{setting}={name} is the name of another folder in the results: use another {setting}")
    return name
