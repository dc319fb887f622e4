"""The lengths and depths of a needle task, expanded from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from harness.errors import ConfigError
from tasks.checks import is_list, short, whole


def expand_lengths(lengths: object) -> list[int]:
    """Lengths in tokens, in the order given, without repeats.

    Raises:
        ConfigError: an entry is neither a whole number above 0 nor ``{from, to, step}``, or there is none.
    """
    expanded: list[int] = []
    for entry in _entries(lengths, "task.lengths", "[1000,2000]"):
        if not isinstance(entry, Mapping):
            expanded.append(whole(entry, "an entry of task.lengths", 1))
            continue
        if set(entry) != {"from", "to", "step"}:
            raise ConfigError(f"task.lengths has a range {short(dict(entry))}: use {{from: 1000, to: 8000, step: 100}}")
        first, last, step = (whole(entry[k], f"{k} in task.lengths", 1) for k in ("from", "to", "step"))
        if first > last:
            raise ConfigError(
                f"task.lengths has a range from {first} to {last}, which is empty: put the smaller number first"
            )
        expanded.extend(range(first, last + 1, step))
    return list(dict.fromkeys(expanded))


def expand_depths(depths: object) -> list[float]:
    """Depths in percent, in the order given, without repeats; whole ones are integers.

    ``{count: N}`` stands for round(linspace(0, 100, N)).

    Raises:
        ConfigError: an entry is neither a number from 0 to 100 nor ``{count: N}``, or there is none.
    """
    expanded: list[float] = []
    for entry in _entries(depths, "task.depths", "[0,50,100]"):
        if isinstance(entry, Mapping):
            if set(entry) != {"count"}:
                raise ConfigError(f"task.depths has {short(dict(entry))}: use {{count: 10}} for evenly spaced depths")
            count = whole(entry["count"], "count in task.depths", 1)
            if count > 101:
                raise ConfigError(
                    f"task.depths has a count of {count}, but there are only 101 whole percents: use 101 or less"
                )
            # As numpy.linspace computes it; Python and NumPy both round half to even.
            expanded.extend(round(i * (100 / (count - 1))) if count > 1 else 0 for i in range(count))
        elif isinstance(entry, bool) or not isinstance(entry, int | float) or not 0 <= entry <= 100:
            raise ConfigError(f"task.depths has {short(entry)}, which is not a percentage: use numbers from 0 to 100")
        else:
            expanded.append(int(entry) if entry == int(entry) else entry)
    return list(dict.fromkeys(expanded))


def _entries(value: object, knob: str, remedy: str) -> list[object]:
    """A list as it is; a single entry as a list of one."""
    entries = list(value) if is_list(value) else [value]
    if not entries or entries == [None]:
        raise ConfigError(f"{knob} is empty: use, for example, {knob}={remedy}")
    return entries
