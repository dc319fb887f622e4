"""Predictions on LongBench by other programs: the layout of their files and the contents of a line.

    longbench        pred/<model>/<dataset>.jsonl, pred_e/… for LongBench-E
    kvcache_factory  <model>_<budget>/<dataset>/<method>.json
    kvpress          <data>__<dataset>__<model>__<press>__<ratio>[__…]/predictions.csv

The first two are JSON lines. The third is a table of everything but the contexts, with columns in any order, in which
``answers`` and ``all_classes`` are printed numpy arrays.

Sources: ``pred.py`` of https://github.com/THUDM/LongBench at c5ea10b (MIT), ``run_longbench.py`` of
https://github.com/Zefan-Cai/KVCache-Factory at 485af3c (MIT), ``evaluation/evaluate.py`` of
https://github.com/NVIDIA/kvpress at 7f5d6b8 (Apache-2.0); read, not copied.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from harness.errors import DataError
from harness.task import Example
from tasks.checks import short
from tasks.doubled import without_doubled
from tasks.jsonl import TEXT, Kind, Text, check_fields, read_lines
from tasks.kvpress import budget_of, other_benchmark, run_of, table
from tasks.longbench.data import RECORDS, RECORDS_E, check_answers
from tasks.longbench.metrics import METRIC_OF, bucket
from tasks.prediction_files import files_below, read_bytes

FORMATS = ("longbench", "kvcache_factory", "kvpress")
Rows = Iterator[tuple[str, dict[str, Any]]]
"""Lines of a file: the position of each, for errors, and its values under the names of LongBench's own files."""
_CLASSES = Kind(Annotated[list[Text], Meta(min_length=1)], "a list of texts")
_LENGTH = Kind(Annotated[int, Meta(ge=0)], "a whole number")
_RULER = frozenset(
    (
        *(f"niah_{kind}_{number}" for kind in ("single", "multikey") for number in (1, 2, 3)),
        *("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2"),
    )
)
"""The 13 tasks of RULER, https://github.com/NVIDIA/RULER (Apache-2.0)."""
_REMEDY = "give the file as the program wrote it"


@dataclass(frozen=True)
class Imported:
    """One file of predictions; the attributes are those of ``harness.task.Predictions``."""

    file: Path
    sha256: str
    dataset: str
    model: str | None
    label: str | None
    budget: str | None
    rows: tuple[tuple[Example, str], ...]


@dataclass(frozen=True)
class _PathInfo:
    """What the path of a file says about its predictions."""

    model: str | None = None
    label: str | None = None
    budget: str | None = None
    dataset: str | None = None
    extended: bool = False


def read_predictions(path: Path, format: str, doubled: str | None) -> list[Imported]:
    """Every file of a format at or below a path, sorted by path.

    Args:
        path: a folder, or a file, the names of whose parent folders matter as well.
        format: one of ``FORMATS``.
        doubled: see ``tasks.doubled.without_doubled``.

    Raises:
        DataError: there is no such file, one is not of this format, or it holds a record twice.
    """
    pattern, parse_path, rows = _FORMATS[format]
    files = files_below(path, pattern)
    predictions = [(file, info) for file in files if (info := parse_path(file)) is not None]
    if not predictions:
        raise DataError(f"{path} holds no predictions of format {format}: they lie at {_LAYOUTS[format]}")
    return [_import(file, info, rows, doubled) for file, info in predictions]


def _import(file: Path, info: _PathInfo, rows: Callable[[bytes, Path], Rows], doubled: str | None) -> Imported:
    raw = read_bytes(file)
    if other := _other_benchmark(raw, file):
        raise other_benchmark(file, other, "LongBench")
    lines = list(rows(raw, file))
    if not lines:
        raise DataError(f"{file} holds no prediction: leave it out, or run the program again")
    dataset = _dataset(lines, info, file)
    for where, values in lines:
        _check(where, values, dataset)
    lines = without_doubled(lines, dataset, {**RECORDS, **RECORDS_E}[dataset], file, doubled)
    ratios = {values["ratio"] for _, values in lines if "ratio" in values}
    if len(ratios) == 1 and info.budget != "full":
        info = replace(info, budget=budget_of(ratios.pop()))
    return Imported(
        file=file,
        sha256=hashlib.sha256(raw).hexdigest(),
        dataset=dataset,
        model=info.model,
        label=info.label,
        budget=info.budget,
        rows=tuple(_examples(lines, dataset)),
    )


def _dataset(lines: Sequence[tuple[str, Mapping[str, Any]]], info: _PathInfo, file: Path) -> str:
    """The dataset that the path and all lines agree on."""
    name = str(info.dataset or lines[0][1].get("dataset"))
    base = _base(name)
    for where, values in lines:
        if _base(str(values.get("dataset", base))) != base:
            raise DataError(
                f"{where} is of dataset {short(values['dataset'])}, not {base}: give each dataset a file of its own"
            )
    dataset = f"{base}_e" if info.extended or name != base else base
    if dataset not in RECORDS and dataset not in RECORDS_E:
        raise DataError(
            f"{file} is of {short(dataset)}, which is no dataset of LongBench: move it elsewhere, or name it after one"
        )
    return dataset


def _base(dataset: str) -> str:
    """A dataset's name without LongBench-E's suffix, which kvpress writes with a hyphen."""
    return re.sub("[-_]e$", "", dataset)


def _check(where: str, values: Mapping[str, Any], dataset: str) -> None:
    """Refuse a line that cannot be scored."""
    kinds = {"pred": TEXT, "answers": Kind(list[Text], "a list of texts, or an empty one")}
    if METRIC_OF[dataset.removesuffix("_e")] == "classification":
        kinds["all_classes"] = _CLASSES
    if dataset.endswith("_e") or values.get("length") is not None:
        kinds["length"] = _LENGTH
    if values.get("_id") is not None:
        kinds["_id"] = TEXT
    check_fields(values, kinds, where, _REMEDY)
    check_answers(values["answers"], dataset, where, _REMEDY)


def _examples(lines: Sequence[tuple[str, Mapping[str, Any]]], dataset: str) -> Iterator[tuple[Example, str]]:
    """Pairs of an example and its prediction.

    A record without an ``_id`` gets an id made from its contents, so that two files of the same records can be paired.
    Further predictions for a record get a number.
    """
    classes = lines[-1][1].get("all_classes")  # the official code scores a whole file by those of its last line
    details = {"all_classes": classes} if METRIC_OF[dataset.removesuffix("_e")] == "classification" else {}
    seen: Counter[str] = Counter()
    for _, values in lines:
        stem = values.get("_id")
        if stem is None:
            known = json.dumps([values["answers"], values.get("length"), values.get("question")]).encode()
            stem = hashlib.sha256(known).hexdigest()[:16]
        seen[stem] += 1
        name = stem if values.get("_id") is not None and seen[stem] == 1 else f"{stem}-{seen[stem]}"
        length = values.get("length")
        group = {} if length is None else {"length": length, "bucket": bucket(length)}
        yield (
            Example(id=name, prompt=(), references=tuple(values["answers"]), group=group, details=details),
            values["pred"],
        )


# --- paths


def _info_longbench(file: Path) -> _PathInfo:
    return _PathInfo(model=file.parent.name, dataset=file.stem, extended=file.parent.parent.name == "pred_e")


def _other_benchmark(raw: bytes, file: Path) -> str | None:
    """The benchmark that a file is of, by its path or its first record, if it is known to be another than LongBench."""
    benchmark = run_of(file).benchmark if file.name == "predictions.csv" else None
    if benchmark is not None and benchmark not in ("longbench", "longbench-e"):
        return benchmark
    for folder in file.parents[:3]:
        if folder.name in _RULER:
            return f"RULER ({folder.name})"
    head = raw[: 2**20].decode("utf-8", errors="replace")
    try:
        first = next(csv.DictReader(io.StringIO(head, newline="")), {}) if file.suffix == ".csv" else {}
    except csv.Error:  # the reader of the table says what is wrong
        return None
    return f"RULER ({first['task']})" if first.get("task") in _RULER else None


def _info_kvcache_factory(file: Path) -> _PathInfo | None:
    if (
        file.parent.name not in (*RECORDS, *_RULER) or file.stem == "metrics"
    ):  # metrics.json is what eval.py writes beside the predictions
        return None
    folder = re.fullmatch(r"(.+)_(-?\d+)", file.parent.parent.name)
    label = file.stem.lower()  # the program accepts the method in any case, and names the file after it
    # -1 stands for a share of each prompt, and the path does not say which.
    budget = "full" if label == "fullkv" else folder[2] if folder and int(folder[2]) > 0 else None
    return _PathInfo(folder[1] if folder else None, label, budget, file.parent.name)


def _info_kvpress(file: Path) -> _PathInfo:
    run = run_of(file)
    extended = run.benchmark == "longbench-e"
    return _PathInfo(run.model, run.label, run.budget, run.dataset, extended)


# --- lines


def _json_lines(raw: bytes, file: Path) -> Rows:
    return read_lines(raw, file, "prediction", _REMEDY)


def _kvpress_table(raw: bytes, file: Path) -> Rows:
    for where, values in table(raw, file, ("predicted_answer", "answers", "task")):
        line: dict[str, Any] = {
            "pred": values["predicted_answer"],
            "answers": values["answers"],
            "dataset": values["task"],
        }
        yield (
            where,
            line
            | {name: values[name] for name in ("all_classes", "length", "_id", "question", "ratio") if name in values},
        )


_FORMATS: Mapping[str, tuple[str, Callable[[Path], _PathInfo | None], Callable[[bytes, Path], Rows]]] = {
    "longbench": ("*.jsonl", _info_longbench, _json_lines),
    "kvcache_factory": ("*.json", _info_kvcache_factory, _json_lines),
    "kvpress": ("predictions.csv", _info_kvpress, _kvpress_table),
}
_LAYOUTS = {
    "longbench": "pred/<model>/<dataset>.jsonl",
    "kvcache_factory": "<model>_<budget>/<dataset>/<method>.json",
    "kvpress": "<data>__<dataset>__<model>__<press>__<ratio>/predictions.csv",
}
