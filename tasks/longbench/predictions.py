"""Predictions on LongBench that other programs wrote: where they lie and what a line says.

    longbench        pred/<model>/<dataset>.jsonl, pred_e/… for LongBench-E
    kvcache_factory  <model>_<budget>/<dataset>/<method>.json
    kvpress          <data>__<dataset>__<model>__<press>__<ratio>[__…]/predictions.csv

The first two are JSON lines. The third is a table of everything but the contexts, its columns in any order, in which
``answers`` and ``all_classes`` are numpy arrays as numpy prints them.

Sources: ``pred.py`` of https://github.com/THUDM/LongBench at c5ea10b (MIT), ``run_longbench.py`` of
https://github.com/Zefan-Cai/KVCache-Factory at 485af3c (MIT), ``evaluation/evaluate.py`` of
https://github.com/NVIDIA/kvpress at 7f5d6b8 (Apache-2.0); read, not copied.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from harness.errors import DataError
from harness.task import Example
from tasks.checks import short
from tasks.jsonl import TEXT, Kind, Text, check_fields, read_lines
from tasks.longbench.data import RECORDS, RECORDS_E
from tasks.longbench.files import MAX_FILE_BYTES
from tasks.longbench.kvpress_csv import table
from tasks.longbench.metrics import METRIC_OF, bucket

FORMATS = ("longbench", "kvcache_factory", "kvpress")
Rows = Iterator[tuple[str, dict[str, Any]]]
"""Lines of a file: where each stands, and what it says under the names of LongBench's own files."""
_CLASSES = Kind(Annotated[list[Text], Meta(min_length=1)], "a list of texts")
_LENGTH = Kind(Annotated[int, Meta(ge=0)], "a whole number")
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
class _Place:
    """What a path says about the file that lies there."""

    model: str | None = None
    label: str | None = None
    budget: str | None = None
    dataset: str | None = None
    extended: bool = False


def read_predictions(path: Path, format: str) -> list[Imported]:
    """Every file of a format at or below a path, in the order of their paths.

    Args:
        path: a file, whose folders say as much as its name; or a folder.
        format: one of ``FORMATS``.

    Raises:
        DataError: there is none, or one is not of this format.
    """
    pattern, place, rows = _FORMATS[format]
    try:
        path = path.expanduser().resolve(strict=True)
        files = [path] if path.is_file() else sorted(file for file in path.rglob(pattern) if file.is_file())
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): give a file or folder of predictions"
        ) from error
    found = [(file, says) for file in files if (says := place(file)) is not None]
    if not found:
        raise DataError(f"{path} holds no predictions of format {format}: they lie at {_LAYOUTS[format]}")
    return [_import(file, says, rows) for file, says in found]


def _import(file: Path, place: _Place, rows: Callable[[bytes, Path], Rows]) -> Imported:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{file} has {file.stat().st_size} bytes, more than the {MAX_FILE_BYTES} that are read: give "
                "predictions alone"
            )
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({type(error).__name__}): make it readable") from error
    lines = list(rows(raw, file))
    if not lines:
        raise DataError(f"{file} holds no prediction: leave it out, or run the program again")
    dataset = _dataset(lines, place, file)
    for where, values in lines:
        _check(where, values, dataset)
    ratios = {values["ratio"] for _, values in lines if "ratio" in values}
    if len(ratios) == 1 and place.budget != "full":
        place = replace(place, budget=_budget(ratios.pop()))
    return Imported(
        file=file,
        sha256=hashlib.sha256(raw).hexdigest(),
        dataset=dataset,
        model=place.model,
        label=place.label,
        budget=place.budget,
        rows=tuple(_examples(lines, dataset)),
    )


def _dataset(lines: Sequence[tuple[str, Mapping[str, Any]]], place: _Place, file: Path) -> str:
    """The dataset that the path and all lines agree on."""
    said = str(place.dataset or lines[0][1].get("dataset"))
    base = _base(said)
    for where, values in lines:
        if _base(str(values.get("dataset", base))) != base:
            raise DataError(
                f"{where} is of dataset {short(values['dataset'])}, not {base}: give each dataset a file of its own"
            )
    dataset = f"{base}_e" if place.extended or said != base else base
    if dataset not in RECORDS and dataset not in RECORDS_E:
        raise DataError(
            f"{file} is of {short(dataset)}, which is no dataset of LongBench: move it elsewhere, or name it after one"
        )
    return dataset


def _base(dataset: str) -> str:
    """A dataset's name in LongBench; kvpress writes LongBench-E's with a hyphen."""
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


def _examples(lines: Sequence[tuple[str, Mapping[str, Any]]], dataset: str) -> Iterator[tuple[Example, str]]:
    """Examples and texts. Without an ``_id``, what is known of a record names it, so that two files of the same records pair."""
    classes = lines[-1][1].get("all_classes")  # the official code scores a whole file by those of its last line
    details = {"all_classes": classes} if METRIC_OF[dataset.removesuffix("_e")] == "classification" else {}
    seen: dict[str, str] = {}
    for where, values in lines:
        name = values.get("_id")
        if name is None:
            known = json.dumps([values["answers"], values.get("length"), values.get("question")]).encode()
            stem = hashlib.sha256(known).hexdigest()[:16]
            name = next(f"{stem}-{copy}" for copy in range(1, len(lines) + 1) if f"{stem}-{copy}" not in seen)
        if name in seen:
            raise DataError(f"{where} repeats the _id of {seen[name]}: {_REMEDY}")
        seen[name] = where
        length = values.get("length")
        group = {} if length is None else {"length": length, "bucket": bucket(length)}
        yield (
            Example(id=name, prompt=(), references=tuple(values["answers"]), group=group, details=details),
            values["pred"],
        )


# --- where files lie


def _place_longbench(file: Path) -> _Place:
    return _Place(model=file.parent.name, dataset=file.stem, extended=file.parent.parent.name == "pred_e")


def _place_kvcache_factory(file: Path) -> _Place | None:
    if (
        file.parent.name not in RECORDS or file.stem == "metrics"
    ):  # metrics.json is what eval.py writes beside the predictions
        return None
    folder = re.fullmatch(r"(.+)_(-?\d+)", file.parent.parent.name)
    label = file.stem.lower()  # the program takes any case and names the file by it
    # -1 stands for a share of each prompt, which the path does not have.
    budget = "full" if label == "fullkv" else folder[2] if folder and int(folder[2]) > 0 else None
    return _Place(folder[1] if folder else None, label, budget, file.parent.name)


def _place_kvpress(file: Path) -> _Place:
    folder = file.parent.parent if file.parent.name.isdigit() else file.parent  # a second run of the same lies in 1/
    data, _, rest = folder.name.partition("__")
    found = re.fullmatch(
        r"(?P<dataset>[^_]+(?:_[^_]+)*)__(?P<model>.+)__(?P<press>.+?)__(?P<ratio>\d\.\d+)(?P<more>(?:__.+)?)", rest
    )
    if not data.startswith("longbench") or found is None:
        return _Place(extended=data == "longbench-e")
    press, ratio = found["press"], float(found["ratio"])
    return _Place(
        model=found["model"],
        label=press + found["more"].replace("__", "-"),
        budget="full" if press == "no_press" else _budget(ratio),
        dataset=found["dataset"],
        extended=data == "longbench-e",
    )


def _budget(ratio: float) -> str:
    """Kvpress says which share is dropped."""
    return "full" if ratio == 0 else f"{100 * (1 - ratio):g}%"


# --- what lines say


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


_FORMATS: Mapping[str, tuple[str, Callable[[Path], _Place | None], Callable[[bytes, Path], Rows]]] = {
    "longbench": ("*.jsonl", _place_longbench, _json_lines),
    "kvcache_factory": ("*.json", _place_kvcache_factory, _json_lines),
    "kvpress": ("predictions.csv", _place_kvpress, _kvpress_table),
}
_LAYOUTS = {
    "longbench": "pred/<model>/<dataset>.jsonl",
    "kvcache_factory": "<model>_<budget>/<dataset>/<method>.json",
    "kvpress": "<data>__<dataset>__<model>__<press>__<ratio>/predictions.csv",
}
