"""The records of SCBench, read from a file of JSON lines for each task and checked turn by turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError
from tasks.checks import short
from tasks.files import Source
from tasks.jsonl import TEXT, TEXTS, Kind, check_fields
from tasks.records import Records, Row, parse
from tasks.scbench.generate import GENERATORS
from tasks.scbench.prompts import turns

REMEDY = (
    "use SCBench's records as .jsonl files, one for each task, from https://huggingface.co/datasets/microsoft/SCBench, "
    f"or task.datasets=[{','.join(GENERATORS)}], which are generated"
)
SOURCE = Source(REMEDY)
FIELDS: Mapping[str, Kind] = {
    "id": Kind(int | str, "a number or a text"),
    "context": TEXT,
    "multi_turns": Kind(list[dict[str, Any]], "a list of turns"),
}
_TURN: Mapping[str, Kind] = {
    "input": TEXT,
    "answer": Kind(str | int | float | list[str], "a text, a number or a list of texts"),
}


def load(data: str | None, dataset: str, asked: Sequence[str]) -> Records:
    """Read and check the records of a task.

    Args:
        data: a folder or a zip.
        dataset: the task.
        asked: all tasks that are asked for, so that an error names all whose files are missing.

    Raises:
        DataError: the file is missing or damaged, or a record is not one of the task.
    """
    name = f"{dataset}.jsonl"
    lacking = [f"{one}.jsonl" for one in asked]
    records = parse(SOURCE.read(SOURCE.locate(data), name, lacking), name, FIELDS, REMEDY)
    for number, row in enumerate(records.rows, start=1):
        _check(row, dataset, f"record {number} of {name}")
    return records


def _check(row: Row, dataset: str, where: str) -> None:
    """Refuse a record that cannot become prompts or be scored."""
    if not row["multi_turns"]:
        raise DataError(f"{where} has no turn: {REMEDY}")
    for number, turn in enumerate(row["multi_turns"], start=1):
        at = f"turn {number} of {where}"
        kinds = {**_TURN, "options": TEXTS} if dataset == "scbench_choice_eng" else _TURN
        if dataset == "scbench_summary_with_needles":
            kinds = {**kinds, "task": TEXT}
        check_fields(turn, kinds, at, REMEDY)
        answer = turn["answer"]
        if isinstance(answer, list) and not answer:
            raise DataError(f"{at} has no answer: {REMEDY}")
        if "options" in kinds and len(turn["options"]) != 4:
            raise DataError(f"{at} has {len(turn['options'])} options, not 4: {REMEDY}")
        if "options" in kinds and (answer[0] if isinstance(answer, list) else answer) not in turn["options"]:
            raise DataError(f"{at} has the answer {short(answer)}, which is none of its options: {REMEDY}")
        if turn.get("task", dataset) not in (dataset, "scbench_summary", "scbench_passkey"):
            raise DataError(f"{at} is of {short(turn['task'])}, which {dataset} does not have: {REMEDY}")
    turns("scdq", dataset, row, None, "")
