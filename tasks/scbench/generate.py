"""Contexts of our own for four of SCBench's tasks, whose generators are not public; seeded and of any size.

The form is that of the published records, so far as their prompts tell it; numbers on them compare with each other, and
not with published ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from random import Random
from string import ascii_letters, ascii_uppercase
from typing import Any

Row = dict[str, Any]
TURNS = 5
_ASKED = ("largest", "smallest", "second largest", "second smallest", "median")


def generate(task: str, index: int, seed: int, entries: int) -> Row:
    """One record of five turns; it depends on nothing but the arguments.

    Args:
        task: a key of ``GENERATORS``.
        index: the record's number.
        seed: seed of all draws.
        entries: how many pairs, strings, lines or numbers the context has, 10 or more.
    """
    context, turns = GENERATORS[task](Random(f"{seed} {task} {index}"), entries)
    return {
        "id": index,
        "context": context,
        "multi_turns": [{"input": asked, "answer": answer} for asked, answer in turns],
    }


def _kv(draw: Random, entries: int) -> tuple[str, list[tuple[str, Any]]]:
    def drawn() -> str:
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))

    pairs = {drawn(): drawn() for _ in range(entries)}
    asked = 'Key: "{}"\nThe value associated with the specified key is: '
    return f"JSON data:\n{json.dumps(pairs)}", [(asked.format(key), pairs[key]) for key in draw.sample([*pairs], TURNS)]


def _prefix_suffix(draw: Random, entries: int) -> tuple[str, list[tuple[str, Any]]]:
    strings = ["".join(draw.choices(ascii_letters, k=24)) for _ in range(entries)]
    asked = 'Which string starts with "{}" and ends with "{}"?'
    turns = [(asked.format(text[:4], text[-4:]), text) for text in draw.sample(strings, TURNS)]
    return f"Dictionary: {' '.join(strings)}", turns


def _vt(draw: Random, entries: int) -> tuple[str, list[tuple[str, Any]]]:
    names = list(dict.fromkeys("".join(draw.choices(ascii_uppercase, k=5)) for _ in range(2 * entries)))[:entries]
    values = draw.sample(range(10_000, 100_000), TURNS)
    chains: list[list[str]] = [[] for _ in values]
    lines = []
    for number, name in enumerate(names):
        # Each chain begins with its value, and goes on from its last name.
        chain = number if number < TURNS else draw.randrange(TURNS)
        lines.append(f"VAR {name} = {f'VAR {chains[chain][-1]}' if chains[chain] else values[chain]}")
        chains[chain].append(name)
    asked = "Find all variables that are assigned the value {}."
    return "\n".join(lines), [(asked.format(value), chain) for value, chain in zip(values, chains, strict=True)]


def _mf(draw: Random, entries: int) -> tuple[str, list[tuple[str, Any]]]:
    numbers = [draw.randint(draw.randint(0, 9), draw.randint(90, 99)) for _ in range(entries)]
    different, ordered = sorted(set(numbers)), sorted(numbers)
    answers = {
        "largest": different[-1],
        "smallest": different[0],
        "second largest": different[-2:][0],
        "second smallest": different[:2][-1],
        "median": ordered[len(ordered) // 2],
    }
    asked = "You should answer with only one number, no other words. The {} number of the list is: "
    return str(numbers), [(asked.format(kind), answers[kind]) for kind in _ASKED]


GENERATORS: Mapping[str, Callable[[Random, int], tuple[str, list[tuple[str, Any]]]]] = {
    "scbench_kv": _kv,
    "scbench_prefix_suffix": _prefix_suffix,
    "scbench_vt": _vt,
    "scbench_mf": _mf,
}
