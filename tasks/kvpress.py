"""kvpress's predictions.csv: what its folder says, and its table, written by pandas, in which lists are printed arrays.

    <benchmark>__<dataset>__<model>__<press>__<ratio>[__…]/predictions.csv

Source: ``evaluation/evaluate.py`` of https://github.com/NVIDIA/kvpress at 7f5d6b8 (Apache-2.0); read, not copied.
"""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from tasks.checks import short
from tasks.prediction_files import files_below

_LITERAL = re.compile(r"""\s*,?\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
_REMEDY = "give the file as the program wrote it"
_LISTS = ("answer", "answers", "all_classes")
BENCHMARKS = (
    "longbench",
    "longbench-e",
    "ruler",
    "loogle",
    "infinitebench",
    "zero_scrolls",
    "needle_in_haystack",
    "longbench-v2",
    "aime25",
    "math500",
)
"""What kvpress calls its benchmarks."""
IMPORTED: Mapping[str, str] = {
    "longbench": "longbench",
    "longbench-e": "longbench",
    "longbench-v2": "longbench_v2",
    "ruler": "ruler",
}
"""Those whose predictions are imported, each with the ``--task`` that reads them."""


@dataclass(frozen=True)
class Run:
    """What the folder of a file says about its predictions; None for what it does not say.

    Attributes:
        benchmark: one of ``BENCHMARKS``.
        dataset: the dataset, or the length of RULER.
        model: the model's name.
        label: the press, with whatever follows the ratio.
        budget: the budget.
    """

    benchmark: str | None = None
    dataset: str | None = None
    model: str | None = None
    label: str | None = None
    budget: str | None = None


def run_of(file: Path) -> Run:
    """What the path of a predictions.csv says; repeated runs are in folders 1/, 2/, … of its folder."""
    folder = file.parent.parent if file.parent.name.isdigit() else file.parent
    benchmark, parted, rest = folder.name.partition("__")
    if not parted or benchmark not in BENCHMARKS:
        return Run()
    match = re.fullmatch(
        r"(?P<dataset>[^_]+(?:_[^_]+)*)__(?P<model>.+)__(?P<press>.+?)__(?P<ratio>\d\.\d+)(?P<more>(?:__.+)?)", rest
    )
    if match is None:
        return Run(benchmark)
    full = match["press"] == "no_press"
    return Run(
        benchmark,
        match["dataset"],
        match["model"],
        match["press"] + match["more"].replace("__", "-"),
        "full" if full else budget_of(float(match["ratio"])),
    )


def tables(path: Path) -> list[Path]:
    """Every predictions.csv at or below a path, sorted by path.

    Args:
        path: a folder, or a file of whatever name.

    Raises:
        DataError: there is none.
    """
    files = files_below(path, "predictions.csv")
    if not files:
        raise DataError(
            f"{path} holds no predictions of format kvpress: they lie at "
            "<benchmark>__<dataset>__<model>__<press>__<ratio>/predictions.csv"
        )
    return files


def budget_of(ratio: float) -> str:
    """The budget for one of kvpress's ratios, which are the share that is dropped."""
    return "full" if ratio == 0 else f"{100 * (1 - ratio):g}%"


def other_benchmark(file: Path, benchmark: str, noun: str) -> DataError:
    """What to say of predictions on another benchmark than the one asked for.

    Args:
        file: the file.
        benchmark: what it is of: one of ``BENCHMARKS``, or ``RULER (vt)``.
        noun: the benchmark asked for, by its name in prose.
    """
    task = IMPORTED.get(benchmark.partition(" ")[0].lower()) if file.suffix == ".csv" else None
    if task is None:
        return DataError(
            f"{file} is of {benchmark}, which kvgauge cannot score: it imports predictions on LongBench and "
            "LongBench-E, and kvpress's on LongBench v2 and RULER, so give the folder of those, or move this file "
            "elsewhere"
        )
    return DataError(f"{file} is of {benchmark}, not of {noun}: import it with --task {task}, or move it elsewhere")


def budget_in(run: Run, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    """The budget of a table: by the ratio in its rows, which a folder's name rounds, or else by the folder's name."""
    ratios = {values["ratio"] for _, values in rows if "ratio" in values}
    return budget_of(ratios.pop()) if len(ratios) == 1 and run.budget != "full" else run.budget


def table(
    raw: bytes, file: Path, needed: Sequence[str], plain: Collection[str] = ()
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a table, each with its position for errors and its values by column.

    ``answer``, ``answers`` and ``all_classes`` become lists of texts, ``length`` a whole number, ``compression_ratio``
    a number called ``ratio``. Empty fields are left out unless the column is needed.

    Args:
        raw: contents of the file.
        file: path of the file, for errors.
        needed: columns that the table must have.
        plain: columns that are texts here: LongBench v2 has the answer "C" and the length "short".

    Raises:
        DataError: the file is not such a table.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 at byte {error.start}: {_REMEDY}") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(raw) + 1))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        if absent := [name for name in needed if name not in header]:
            raise DataError(f"line 1 of {file} names no column {absent[0]!r}: {_REMEDY}")
        if twice := [name for name in needed if header.count(name) > 1]:
            raise DataError(f"line 1 of {file} names the column {twice[0]!r} twice: {_REMEDY}")
        start = reader.line_num + 1  # errors name the first line of a row
        for fields in reader:
            where, start = f"line {start} of {file}", reader.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                raise DataError(
                    f"{where} begins a row of {len(fields)} fields where the header has {len(header)}, as in a cut "
                    f"file: {_REMEDY}"
                )
            yield where, _values(dict(zip(header, fields, strict=True)), where, needed, plain)
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {file} is not CSV ({error}), as in a file that was cut: {_REMEDY}"
        ) from error


def _values(row: dict[str, str], where: str, needed: Sequence[str], plain: Collection[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in row.items():
        if not text and name not in needed:
            continue
        try:
            match "" if name in plain else name:
                case "answer" | "answers" | "all_classes":
                    values[name] = texts(text)
                case "length":
                    values[name] = int(text)
                case "compression_ratio":
                    values["ratio"] = float(text)
                case _:
                    values[name] = text
        except ValueError as error:
            raise DataError(f"{where} has {name}={short(text)}, which is not {_KINDS[name]}: {_REMEDY}") from error
    return values


_KINDS = {"length": "a whole number", "compression_ratio": "a number"} | dict.fromkeys(_LISTS, "a list of texts")


def texts(printed: str) -> list[str]:
    """The texts in a printed array, ``['one' "the other's"]``, or in a printed list.

    An array is printed without commas, so Python would read its texts as a single one.

    Raises:
        ValueError: ``printed`` is something else.
    """
    inside = printed.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        raise ValueError(printed)
    inside = inside[1:-1].rstrip()
    values, position = [], 0
    while position < len(inside):
        literal = _LITERAL.match(inside, position)
        if literal is None:
            raise ValueError(printed)
        try:
            values.append(str(ast.literal_eval(literal[1])))
        except SyntaxError as error:  # an invalid escape
            raise ValueError(printed) from error
        position = literal.end()
    return values
