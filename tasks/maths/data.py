"""The problems of MATH-500, GSM8K and AIME 2024, read from their official files and checked record by record."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from harness.errors import ConfigError, DataError
from tasks.checks import short
from tasks.files import Hub, Source
from tasks.jsonl import TEXT, Kind, check_fields, read_lines

_NUMBER = Kind(int, "a whole number")
_ID = Kind(Annotated[int, Meta(ge=0, le=2**63 - 1)] | str, "a number or a text")
_MARK = "#### "
"""What the answer stands behind in a solution of GSM8K."""


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        id: its name within the benchmark.
        text: the problem.
        answer: the reference, a number or LaTeX without dollar signs.
        group: what its scores are grouped by.
    """

    id: str
    text: str
    answer: str
    group: Mapping[str, int | str]


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's problems are, and what a record of its file means.

    Attributes:
        title: its name in errors.
        records: number of problems that were published.
        files: names of its file, jsonl or parquet: on the hub, in the official repository, as others keep it.
        fields: the types of a record's fields.
        problem: the problem of a record, given its place in the file.
        source: where the file is.
    """

    title: str
    records: int
    files: tuple[str, ...]
    fields: Mapping[str, Kind]
    problem: Callable[[Mapping[str, Any], int], Problem]
    source: Source


def _math500(values: Mapping[str, Any], index: int) -> Problem:
    group = {"level": values["level"], "subject": values["subject"]}
    return Problem(values["unique_id"], values["problem"], values["answer"], group)


def _gsm8k(values: Mapping[str, Any], index: int) -> Problem:
    if _MARK not in values["answer"]:
        raise ValueError(f"its solution names no answer behind {_MARK.strip()!r}")
    return Problem(f"test-{index}", values["question"], values["answer"].rpartition(_MARK)[2].strip(), {})


def _aime24(values: Mapping[str, Any], index: int) -> Problem:
    return Problem(str(values["id"]), values["problem"], str(values["answer"]).strip(), {})


def _source(title: str, repository: str, revision: str, file: str, sha256: str | None = None) -> Source:
    remedy = f"use the official file of {title}"
    return Source(remedy, Hub(repository, revision, file, sha256, f"set task.data to a copy of {title}'s file"))


BENCHMARKS: Mapping[str, Benchmark] = {
    # Lightman et al., arXiv:2305.20050, from MATH (Hendrycks et al., arXiv:2103.03874; MIT).
    "math500": Benchmark(
        "MATH-500",
        500,
        ("test.jsonl", "math500.jsonl", "math.jsonl"),
        {"problem": TEXT, "answer": TEXT, "unique_id": TEXT, "level": _NUMBER, "subject": TEXT},
        _math500,
        _source(
            "MATH-500",
            "HuggingFaceH4/MATH-500",
            "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
            "test.jsonl",
            "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        ),
    ),
    # Cobbe et al., arXiv:2110.14168; https://github.com/openai/grade-school-math (MIT). The hub has a parquet file.
    "gsm8k": Benchmark(
        "GSM8K",
        1319,
        ("test-00000-of-00001.parquet", "test.jsonl", "gsm8k.jsonl"),
        {"question": TEXT, "answer": TEXT},
        _gsm8k,
        _source(
            "GSM8K",
            "openai/gsm8k",
            "740312add88f781978c0658806c59bc2815b9866",
            "main/test-00000-of-00001.parquet",
        ),
    ),
    # The AIME I and II of 2024; the problems are the Mathematical Association of America's.
    "aime24": Benchmark(
        "AIME 2024",
        30,
        ("train-00000-of-00001.parquet", "aime24.jsonl"),
        {"id": _ID, "problem": TEXT, "answer": _ID},
        _aime24,
        _source(
            "AIME 2024",
            "HuggingFaceH4/aime_2024",
            "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
            "data/train-00000-of-00001.parquet",
        ),
    ),
}


def benchmark(name: object) -> Benchmark:
    """A benchmark by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if not isinstance(name, str) or name not in BENCHMARKS:
        raise ConfigError(f"task.benchmark={short(name)} is not there: use one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def load(of: Benchmark, path: Path) -> list[Problem]:
    """The problems of a benchmark, in the order of its file.

    Args:
        of: the benchmark.
        path: its file, or a folder with the file under one of its names.

    Raises:
        DataError: the file is missing, or a record is not one of this benchmark.
    """
    file = _file(of, path)
    problems: dict[str, Problem] = {}
    remedy = of.source.remedy
    for index, (where, values) in enumerate(_records(of, file)):
        check_fields(values, of.fields, where, remedy)
        try:
            problem = of.problem(values, index)
        except ValueError as error:
            raise DataError(f"{where}: {error}: {remedy}") from error
        if not problem.text.strip() or not problem.answer:
            raise DataError(f"{where} has an empty {'answer' if problem.text.strip() else 'problem'}: {remedy}")
        if problem.id in problems:
            raise DataError(f"{where} has the id {short(problem.id)} of an earlier record: {remedy}")
        problems[problem.id] = problem
    if not problems:
        raise DataError(f"{file} holds no problem: {remedy}")
    return list(problems.values())


def digest(problems: Sequence[Problem]) -> str:
    """Hash of problems and references, the same from a jsonl and a parquet file."""
    written = json.dumps([[one.id, one.text, one.answer] for one in problems], ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()


def _file(of: Benchmark, path: Path) -> Path:
    if not path.is_dir():
        return path
    if found := [path / name for name in of.files if (path / name).is_file()]:
        return found[0]
    raise DataError(f"{path} holds no {' or '.join(of.files)}: add one, or set task.data to the file itself")


def _records(of: Benchmark, file: Path) -> Sequence[tuple[str, Mapping[str, Any]]]:
    raw, remedy = of.source.read_file(file), of.source.remedy
    if file.suffix != ".parquet":
        return list(read_lines(raw, file.name, "problem", remedy))
    import pandas as pd

    try:
        rows = pd.read_parquet(io.BytesIO(raw)).to_dict("records")
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no parquet file ({type(error).__name__}): {remedy}") from error
    return [
        (f"record {number} of {file.name}", {str(k): v for k, v in row.items()}) for number, row in enumerate(rows, 1)
    ]
