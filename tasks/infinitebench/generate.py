"""Records of the six tasks that InfiniteBench generates, made anew, seeded and of any size.

Form and parameters: ``data`` of https://github.com/OpenBMB/InfiniteBench at 88b3daa (MIT), whose scripts have no seed,
so that its own records cannot be made again; the code is our own. Scores of these records compare with each other, and
not with those of the published files.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Row = dict[str, Any]
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
_DEPTHS = 59
"""Places of the needle: before line 0, 90, 180, … of 5,220."""
_ASKED = ("largest", "second largest", "third largest", "smallest", "second smallest", "third smallest", "median")
_LINES, _PAIRS, _NUMBERS, _TERMS, _FUNCTIONS = 5_220, 2_500, 60_000, 30_000, 550


def generate(task: str, index: int, seed: int, share: float) -> Row:
    """One record; it depends on nothing but the arguments.

    Args:
        task: a key of ``GENERATORS``.
        index: its place among the published number of records.
        seed: seed of all draws.
        share: size of the context as a share of the published one, above 0.
    """
    context, asked, answer = GENERATORS[task](index, Random(f"{seed} {task} {index}"), share)
    return {"id": index, "context": context, "input": asked, "answer": answer, "options": []}


def _sized(published: int, share: float, least: int) -> int:
    return max(least, round(published * share))


def _needle(line: str, index: int, share: float) -> str:
    lines = _sized(_LINES, share, 1)
    before = lines * (index % _DEPTHS) // (_DEPTHS - 1)
    return NOISE * before + line + NOISE * (lines - before)


def _passkey(index: int, draw: Random, share: float) -> tuple[str, str, Sequence[Any]]:
    key = "".join(draw.choices("0123456789", k=5))
    line = f"The pass key is {key}. Remember it. {key} is the pass key.\n"
    return _needle(line, index, share), "What is the pass key?", [key]


def _number_string(index: int, draw: Random, share: float) -> tuple[str, str, Sequence[Any]]:
    digits = draw.choices("0123456789", k=5)
    for count in range(5):
        place = draw.randint(0, 4 + count)
        digits.insert(place, digits[place])
    key = "".join(digits)
    line = f"The sequence of digits is {key}. Remember it. {key} is the sequence of digits.\n"
    return _needle(line, index, share), "What is the sequence of digits?", [key]


def _kv(index: int, draw: Random, share: float) -> tuple[str, str, Sequence[Any]]:
    def drawn() -> str:
        return str(uuid.UUID(int=draw.getrandbits(128), version=4))

    pairs = {drawn(): drawn() for _ in range(_sized(_PAIRS, share, 2))}
    key = list(pairs)[len(pairs) * (index % 500) // 500]
    asked = f'\nKey: "{key}"\nThe value associated with the specified key is: '
    return f"JSON data:\n{json.dumps(pairs)}", asked, [pairs[key]]


def _math_find(index: int, draw: Random, share: float) -> tuple[str, str, Sequence[Any]]:
    kind = _ASKED[index % len(_ASKED)]
    # So that the extremes differ from record to record.
    top = draw.randint(79, 99) if "smallest" not in kind else 99
    bottom = draw.randint(0, 19) if "largest" not in kind else 0
    numbers = draw.choices(range(bottom, top + 1), k=_sized(_NUMBERS, share, 9))
    different = sorted(set(numbers), reverse="largest" in kind)
    place = {"second": 1, "third": 2}.get(kind.split()[0], 0)
    answer = sorted(numbers)[len(numbers) // 2] if kind == "median" else different[min(place, len(different) - 1)]
    asked = f"You should answer with only one number, no other words. The {kind} number of the list is: "
    return str(numbers), asked, [answer]


def _math_calc(index: int, draw: Random, share: float) -> tuple[str, str, Sequence[Any]]:
    value = draw.randint(0, 99)
    written, values = [str(value)], []
    for _ in range(_sized(_TERMS, share, 3) - 1):
        following = draw.randint(0, 99)
        written.append(f"{'+' if following >= value else '-'} {abs(following - value)}")
        values.append(value := following)
    return " ".join(written), "The value of the numerical expression is: ", values


def _code_run(index: int, draw: Random, share: float) -> tuple[str, str, Sequence[Any]]:
    depth = (2, 4, 6, 8, 10)[index % 5]
    count = _sized(_FUNCTIONS, share, depth)
    names = [f"func_{number}" for number in draw.sample(range(1, 2 * count + 1), count)]
    added = {name: draw.randint(-12, 17) for name in names}
    # Chains of so many functions, each of which calls the next; what is left over makes a shorter one.
    called = {name: names[i + 1] if i % depth < depth - 1 and i + 1 < count else "" for i, name in enumerate(names)}
    first, x = names[0], draw.randint(-10, 10)
    value, name = x, first
    while name:
        value, name = value + added[name], called[name]
    written = []
    for name in draw.sample(names, count):
        inside = f"{called[name]}(x)" if called[name] else "x"
        plus = f" {'+' if added[name] > 0 else '-'} {abs(added[name])}" if added[name] else ""
        written.append(f"def {name}(x):\n    return {inside}{plus}\n\n")
    asked = (
        f"Please give me the exact number of the return value of {first}({x}). Your response should end with the "
        "sentence 'The return value is:'."
    )
    return "\nHere is the content of functions_module.py:\n\n" + "".join(written), asked, [value]


GENERATORS: Mapping[str, Callable[[int, Random, float], tuple[str, str, Sequence[Any]]]] = {
    "passkey": _passkey,
    "number_string": _number_string,
    "kv_retrieval": _kv,
    "math_find": _math_find,
    "math_calc": _math_calc,
    "code_run": _code_run,
}
