"""Words of a command line: settings in Hydra's grammar, and what kvgauge reads into them before Hydra does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_ANY_KEY = re.compile(r"(?:model|task)\.chat_arguments[.=]")
"""Settings that are mappings whose keys nobody lists, so that any may be given."""


def understood(words: Sequence[str]) -> list[str]:
    r"""Words as Hydra is to read them.

    ``\n`` in double quotes becomes a line break, as in YAML; in single quotes it stays. Settings whose keys are free
    are marked as such.
    """
    return [_QUOTED.sub(_with_line_breaks, f"++{word}" if _ANY_KEY.match(word) else word) for word in words]


def is_free(setting: str) -> bool:
    """Whether a setting is a mapping with any keys, or one of these keys."""
    return _ANY_KEY.match(f"{setting}=") is not None


def quoted(word: str) -> str | None:
    """A setting with its value in quotes, as a shell takes it; None if quotes do not help.

    Args:
        word: a setting that Hydra cannot read, ``task.data=/a(b)``.
    """
    setting, given, value = word.partition("=")
    if not given:
        return None
    inside = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    whole = f"{setting}={_in_quotes(inside)}"
    if value.startswith("["):
        whole = f"{setting}=[{','.join(map(_readable, value.strip('[]').split(',')))}]"
    return shlex.quote(whole) if _can_be_read(whole) else None


def _with_line_breaks(part: re.Match[str]) -> str:
    text = part[0]
    return re.sub(r"(?<!\\)\\n", "\n", text) if text.startswith('"') else text


def _in_quotes(text: str) -> str:
    # A backslash counts as one only before a quote.
    return '"' + re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), text) + '"'


def _readable(item: str) -> str:
    item = item.strip()
    return item if _can_be_read(f"x={item}") else _in_quotes(item)


def _can_be_read(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return not OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False
