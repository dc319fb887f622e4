"""IFEval's prompts with their instructions, read from the official file and checked line by line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.values import fits
from tasks.checks import short
from tasks.files import Hub, Source
from tasks.ifeval.rules import RULES
from tasks.jsonl import TEXT, Kind, Text, check_fields, read_lines

RECORDS = 541
"""Number of prompts that were published, with 834 instructions; Zhou et al., arXiv:2311.07911."""
NAMES = ("ifeval_input_data.jsonl", "input_data.jsonl")
"""Names of the file: on the hub, and in Google's repository."""
_REMEDY = "use IFEval's official input_data.jsonl"
SOURCE = Source(
    _REMEDY,
    Hub(
        repository="google/IFEval",
        revision="966cd89545d6b6acfd7638bc708b98261ca58e84",
        file=NAMES[0],
        sha256=None,
        instead="set task.data to a copy of input_data.jsonl",
    ),
)
_FIELDS: Mapping[str, Kind] = {
    "key": Kind(int, "a whole number"),
    "prompt": TEXT,
    "instruction_id_list": Kind(list[Text], "a list of texts"),
    "kwargs": Kind(list[dict[str, Any]], "a list of mappings"),
}


@dataclass(frozen=True)
class Asked:
    """A prompt with its instructions.

    Attributes:
        key: its number.
        prompt: the text.
        instructions: the kind of each instruction, and what its rule takes.
    """

    key: int
    prompt: str
    instructions: tuple[tuple[str, Mapping[str, Any]], ...]


def load(path: Path) -> list[Asked]:
    """All prompts, in the order of the file.

    Args:
        path: the file, or a folder with it.

    Raises:
        DataError: the file is missing, or a line is not a record of IFEval.
    """
    file = path
    if path.is_dir():
        found = [path / name for name in NAMES if (path / name).is_file()]
        if not found:
            raise DataError(f"{path} holds no {' or '.join(NAMES)}: {_REMEDY}")
        file = found[0]
    asked: dict[int, Asked] = {}
    for where, values in read_lines(SOURCE.read_file(file), file.name, "prompt", _REMEDY):
        check_fields(values, _FIELDS, where, _REMEDY)
        key, kinds, arguments = values["key"], values["instruction_id_list"], values["kwargs"]
        if key in asked:
            raise DataError(f"{where} has the key {key} of an earlier line: {_REMEDY}")
        if not kinds or len(kinds) != len(arguments):
            raise DataError(f"{where} has {len(kinds)} instructions and {len(arguments)} kwargs: {_REMEDY}")
        asked[key] = Asked(
            key,
            values["prompt"],
            tuple((kind, _arguments(kind, given, where)) for kind, given in zip(kinds, arguments, strict=True)),
        )
    if not asked:
        raise DataError(f"{file} holds no prompt: {_REMEDY}")
    return list(asked.values())


def digest(asked: Sequence[Asked]) -> str:
    """Hash of prompts and instructions, whether the file writes arguments that are null or leaves them out."""
    written = json.dumps([[one.key, one.prompt, one.instructions] for one in asked], sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()


def _arguments(kind: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a rule takes; null stands for an argument that another kind has."""
    if kind not in RULES:
        raise DataError(f"{where} has the instruction {short(kind)}, which is none of the 25 kinds: {_REMEDY}")
    wanted = RULES[kind][1]
    arguments = {name: value for name, value in given.items() if value is not None}
    for name, type_ in wanted.items():
        # The hub's file has whole numbers as 3.0 where others of the column are null.
        if type_ is int and isinstance(arguments.get(name), float) and arguments[name].is_integer():
            arguments[name] = int(arguments[name])
        if not fits(arguments.get(name), type_):
            raise DataError(f"{where} has {name}={short(arguments.get(name))} for {kind}: {_REMEDY}")
    if unknown := sorted(set(arguments) - set(wanted)):
        raise DataError(f"{where} has {unknown[0]}, which {kind} does not take: {_REMEDY}")
    return arguments
