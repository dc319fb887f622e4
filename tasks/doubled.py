"""Doubled predictions: the lines that a rerun leaves behind when it appends to the file of an earlier one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError

DOUBLED = ("first", "last", "all")
"""What to take of predictions for the same record: the first, the last, or all of them."""
OWN_SHARE = 0.05
"""Largest share of lines of a complete file that may be doubled by the dataset itself: multifieldqa_zh holds one record
twice, and files without questions tell records apart by answers and length alone."""

Line = tuple[str, dict[str, Any]]


def record_key(values: Mapping[str, Any]) -> str:
    """What tells the record of a prediction from others: its ``_id`` or, without one, answers, length and question."""
    if values.get("_id") is not None:
        return str(values["_id"])
    return json.dumps([values["answers"], values.get("length"), values.get("question", values.get("input"))])


def without_doubled(lines: Sequence[Line], dataset: str, published: int, file: Path, take: str | None) -> list[Line]:
    """The predictions of a file, at most one for each record unless all are wanted.

    A file with exactly the published number of lines is complete, and its few doubled ones are the dataset's own.

    Args:
        lines: the predictions, each with its position.
        dataset: name of the dataset, for errors.
        published: number of records that it has.
        file: path of the file, for errors.
        take: one of ``DOUBLED``; None to refuse doubled predictions, and more of them than the dataset has records.

    Raises:
        DataError: names the first two lines of one record, or the number of predictions.
    """
    if take == "all":
        return list(lines)
    copies: dict[str, list[Line]] = {}
    for where, values in lines:
        copies.setdefault(record_key(values), []).append((where, values))
    doubled = len(lines) - len(copies)
    identified = any(values.get("_id") is not None for _, values in lines)
    if doubled and len(lines) == published and doubled <= OWN_SHARE * published and not identified:
        return list(lines)
    if take is None and doubled:
        first, second = next(several for several in copies.values() if len(several) > 1)[:2]
        numbers = " and ".join(where.partition(" of ")[0].removeprefix("line ") for where, _ in (first, second))
        same = "_id" if first[1].get("_id") is not None else "answers, length and question"
        others = f", and {doubled - 1} more are doubled" if doubled > 1 else ""
        raise DataError(
            f"lines {numbers} of {file} have the same {same}{others}, in {len(lines)} lines for a dataset of "
            f"{published}, as where a rerun was appended: import with --doubled last (or first, or all), or give the "
            "lines of one run"
        )
    kept = [several[-1 if take == "last" else 0] for several in copies.values()]
    if len(kept) > published:
        raise DataError(
            f"{file} holds {len(kept)} predictions, more than the {published} records of {dataset}: give the lines of "
            "one run, or import with --doubled all if your dataset is larger"
        )
    return kept
