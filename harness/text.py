"""Names that can become folders, and text made safe to show."""

from __future__ import annotations

import re

from harness.errors import ConfigError


def plain(text: str) -> str:
    """The text on one line, without characters that move the cursor, change colours or reverse the reading order."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
"""Regular expression for names of folders that are valid on every system and cannot lead out of their parent."""
_RESERVED = ("report", "published")


def check_name(value: object, setting: str) -> str:
    """Return ``value`` if it can name a folder on every system.

    Args:
        value: a value from the configuration.
        setting: name of the setting, for the message: ``model.name``.

    Raises:
        ConfigError: it is not a text of 1 to 128 letters, digits, '.', '_' and '-' that begins with a letter or digit.
    """
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
        raise ConfigError(
            f"{setting}={shown} cannot name a folder: "
            "use at most 128 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return value


def check_model_name(value: object, setting: str) -> str:
    """Return ``value`` if it can name a model's folder in the results.

    Args:
        value: a value from the configuration.
        setting: name of the setting, for the message.

    Raises:
        ConfigError: as in ``check_name``, or it is the name of another folder in the results.
    """
    name = check_name(value, setting)
    if name in _RESERVED:
        raise ConfigError(f"{setting}={name} is the name of another folder in the results: use another {setting}")
    return name
