"""RULER's records in files: those that NVIDIA's program writes, and the tables that kvpress publishes.

    NVIDIA's     <length>/<task>/validation.jsonl, <length>/<task>.jsonl or <task>_<length>.jsonl
                 with input, outputs and perhaps answer_prefix
    kvpress's    <length>/….parquet or .jsonl with context, question, answer_prefix, answer and task

A path that names no length is of whatever length is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import DataError
from tasks.checks import short
from tasks.jsonl import TEXT, TEXTS, check_fields, read_lines
from tasks.ruler.recipe import TASKS
from tasks.ruler.records import Record, split

_NVIDIA = {"input": TEXT, "outputs": TEXTS}
_KVPRESS = {"context": TEXT, "question": TEXT, "answer_prefix": TEXT, "answer": TEXTS}
_REMEDY = "give RULER's .jsonl files, or the .parquet files of kvpress's simonjegou/ruler"


@lru_cache(maxsize=2)
def read_records(source: str, task: str, tokens: int) -> tuple[Record, ...]:
    """The records of a task at a length, in the order of their file.

    Args:
        source: a folder with files as above, or one file.
        task: one of ``tasks.ruler.recipe.TASKS``.
        tokens: the length.

    Raises:
        DataError: there is no such record, one is malformed, or two files have some.
    """
    given = f"task.data={short(source)}"
    found: dict[Path, list[Record]] = {}
    for file, parts in _files(source, given):
        if _tokens_of(parts) not in (None, tokens):
            continue
        named = next((_bare(part) for part in reversed(parts) if _bare(part) in TASKS), None)
        if named in (None, task):
            records = [_record(values, task, where) for where, values in _rows(file, task, named)]
            if records:
                found[file] = records
    if not found:
        raise DataError(
            f"{given} holds no record of {task} at {tokens} tokens: add some, or leave it out of task.tasks"
        )
    if len(found) > 1:
        one, other = list(found)[:2]
        raise DataError(f"{one} and {other} both hold records of {task} at {tokens} tokens: give one of them")
    return tuple(*found.values())


def _files(source: str, given: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every file, with the parts of its path, its name without a suffix last, that may say a length or a task."""
    try:
        path = Path(source).expanduser().resolve(strict=True)
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in (".jsonl", ".parquet") and file.is_file():
                folders = file.parent.relative_to(path.parent).parts if path.is_dir() else file.parts[-3:-1]
                yield file, (*folders, file.stem)
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{given} cannot be read ({type(error).__name__}): {_REMEDY}") from error


def _tokens_of(parts: tuple[str, ...]) -> int | None:
    """The length that the last of the parts that names one says: ``4096``, ``niah_single_1_4096``."""
    matches = (re.fullmatch(r"(?:.*_)?(\d{3,7})", part) for part in reversed(parts))
    return next((int(match[1]) for match in matches if match), None)


def _bare(part: str) -> str:
    return re.sub(r"_\d{3,7}$", "", part)


def _rows(file: Path, task: str, named: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The rows of a task with their positions; those of a file whose path names a task are all of that one."""
    try:
        rows = (
            _table(file, task, named)
            if file.suffix == ".parquet"
            else read_lines(file.read_bytes(), file, "record", _REMEDY)
        )
        for where, values in rows:
            if named is None and "task" not in values:
                raise DataError(f"{where} has no field 'task', and the path names none: {_REMEDY}")
            if values.get("task", named) == task:
                yield where, values
    except OSError as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}): make it readable") from error


def _table(file: Path, task: str, named: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    from pyarrow import ArrowException, parquet

    try:
        has_task = "task" in parquet.read_schema(file).names
        rows = parquet.read_table(file, filters=[("task", "==", task)] if has_task else None).to_pylist()
    except ArrowException as error:
        raise DataError(f"{file} is no parquet file, or was cut ({type(error).__name__}): {_REMEDY}") from error
    for number, values in enumerate(rows, start=1):
        yield f"row {number} of {task} in {file}", values


def _record(values: Mapping[str, Any], task: str, where: str) -> Record:
    if "input" in values:
        check_fields(values, _NVIDIA | ({"answer_prefix": TEXT} if "answer_prefix" in values else {}), where, _REMEDY)
        text, answers = values["input"] + values.get("answer_prefix", ""), values["outputs"]
    else:
        check_fields(values, _KVPRESS, where, _REMEDY)
        text, answers = values["context"] + values["question"] + values["answer_prefix"], values["answer"]
    if not answers:
        raise DataError(f"{where} has no answer: {_REMEDY}")
    try:
        return split(task, text, answers)
    except ValueError as error:
        raise DataError(f"{where} holds no question of {task}: {_REMEDY}") from error
