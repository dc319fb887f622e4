"""``kvgauge import``: predictions of other programs, written into cells and scored like our own."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from harness.compression.budget import FULL, parse_budget
from harness.config.build import build, build_task, task_config
from harness.errors import ConfigError
from harness.printing import say
from harness.report.overview import rebuild
from harness.report.stats.summary import cell_summary
from harness.results import Cell, CellResult, Manifest, Record
from harness.run.provenance import provenance
from harness.store.cells import CellWriter, cell_folder
from harness.store.manifest import fingerprint
from harness.store.order import method_places
from harness.store.places import cells_of_task
from harness.store.records import read_records
from harness.store.scoring import with_scores
from harness.task import Importer, Predictions, Task, published_examples
from harness.text import check_model_name, check_name

HELP = "Read predictions of other programs into results, scored as ours are."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a file or folder, its format, and options for what its path does not say."""
    parser.add_argument("path", type=Path, help="a file or a folder of predictions")
    parser.add_argument("--format", required=True, help="longbench, kvcache_factory or kvpress")
    parser.add_argument("--model", help="the model's name in the results (default: what the path says)")
    parser.add_argument("--label", help="the method's label (default: what the path says)")
    parser.add_argument("--budget", help="the budget: 128, 12%%, full (default: what the path says)")
    parser.add_argument(
        "--doubled",
        choices=("first", "last", "all"),
        help="what to take where a file holds several predictions for one record, as after an appended rerun "
        "(default: refuse the file)",
    )
    parser.add_argument("--to", type=Path, default=Path("results"), help="the results folder (default: results)")
    parser.add_argument("--task", default="longbench", help="the benchmark (default: longbench)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="task.KNOB=VALUE",
        help="how to score, as task.code_similarity=levenshtein",
    )


@dataclass(frozen=True)
class _Import:
    """One file of predictions, and the cell that it is imported into."""

    file: Predictions
    task: Task
    manifest: Manifest
    folder: Path


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Import every file at or below the path, then write the tables of the models concerned and the page.

    Raises:
        ConfigError: the path does not say the model, label or budget and no option does, or one of them is unusable.
        DataError: a file is not of the given format, or holds a record twice.
        StoreError: a cell already contains something else, or the results folder cannot be written.
    """
    if wrong := [change for change in arguments.set if not change.startswith("task.")]:
        raise ConfigError(
            f"--set {wrong[0]} is no setting of the task: give, for example, --set task.code_similarity=levenshtein"
        )
    config = task_config(arguments.task, *arguments.set)
    importer = build(config)
    if not isinstance(importer, Importer):
        raise ConfigError(f"task={arguments.task} imports nothing: use longbench, longbench_v2 or ruler")
    if arguments.format not in importer.formats:
        raise ConfigError(f"--format {arguments.format} is unknown: use {', '.join(importer.formats)}")
    to = arguments.to.expanduser()
    files = importer.predictions(arguments.path, arguments.format, arguments.doubled)
    imports = _plan(files, config, arguments, to, console)
    new = sum(_write(one) for one in imports)
    rebuild([to / model for model in dict.fromkeys(one.manifest.model for one in imports)], None, console)
    console.print(
        f"imported {sum(len(one.file.rows) for one in imports)} predictions from {len(imports)} files: {new} new"
    )


def _plan(
    files: Sequence[Predictions], config: Mapping[str, Any], arguments: argparse.Namespace, to: Path, console: Console
) -> list[_Import]:
    """The cell for each file; nothing is written before every file has a cell of its own.

    A program may store the same texts of a method without a budget once for every budget: of equal files at ``full``,
    only the first is imported.
    """
    cells = [Cell(_label(file, arguments), _budget(file, arguments)) for file in files]
    # In tables, methods that keep everything come first, and then the others by their labels.
    sized = {cell.label for cell in cells if cell.budget != FULL.text}
    order = sorted({cell.label for cell in cells}, key=lambda label: (label in sized, label))
    labels = {label: label not in sized for label in order}
    origin = provenance("cpu")
    imports: dict[Path, _Import] = {}
    for file, cell in zip(files, cells, strict=True):
        model = check_model_name(_given(file.model, arguments.model, "--model", file.file), "--model")
        folder = cell_folder(to, model, file.task, cell)
        if folder in imports and cell.budget == FULL.text and imports[folder].file.rows == file.rows:
            say(console, f"{file.file} is left out: it holds what {imports[folder].file.file} holds")
            continue
        if folder in imports:
            raise ConfigError(
                f"{imports[folder].file.file} and {file.file} are both {cell.name}: import one of them, or each "
                "with its --label"
            )
        file_config = {**config, **file.config}
        task = next(task for task in build_task(file_config)[0] if task.name == file.task)
        settings = {
            "imported": {"format": arguments.format, "file_sha256": file.sha256}
            | ({"doubled": arguments.doubled} if arguments.doubled else {}),
            "task": dict(file.settings),
            "budget": cell.budget,
        }
        manifest = Manifest(
            cell=cell,
            place=method_places(cells_of_task(folder.parent).values(), labels)[cell.label],
            model=model,
            task=file.task,
            settings=settings,
            metrics=task.metrics,
            heatmap_axes=task.heatmap_axes,
            note=f"Imported from {arguments.format}; which entries were kept is not known."
            + (f" Of several predictions for one record: {arguments.doubled}." if arguments.doubled else ""),
            task_config=file_config,
            provenance={**origin, "fingerprint": fingerprint(settings), "file": str(file.file)},
            breakdown=task.breakdown,
            published=published_examples(task),
        )
        imports[folder] = _Import(file, task, manifest, folder)
    return list(imports.values())


def _write(one: _Import) -> int:
    """Write the records of one file, and return how many of them are new."""
    full = one.manifest.cell.budget == FULL.text
    records = [
        with_scores(
            Record(
                example_id=example.id,
                group=example.group,
                references=example.references,
                details=example.details,
                prompt_tokens=None,
                prompt_sha256=None,
                text=text,
                retention=1.0 if full else None,
            ),
            one.task,
            example,
        )
        for example, text in one.file.rows
    ]
    with closing(CellWriter(one.folder, one.manifest)) as writer:
        earlier = read_records(one.folder)
        new = [record for record in records if earlier.get(record.example_id) != _as_read(record)]
        if new:
            writer.append(new)
        writer.finish(cell_summary(CellResult(one.manifest.cell, len(records), tuple(records)), one.task.metrics))
    return len(new)


def _as_read(record: Record) -> Record:
    return msgspec.convert(json.loads(json.dumps(record.to_json())), Record)


def _label(file: Predictions, arguments: argparse.Namespace) -> str:
    return check_name(_given(file.label, arguments.label, "--label", file.file), "--label")


def _budget(file: Predictions, arguments: argparse.Namespace) -> str:
    return parse_budget(_given(file.budget, arguments.budget, "--budget", file.file)).text


def _given(from_path: str | None, given: str | None, option: str, file: Path) -> str:
    """The value given on the command line, or else the one in the file's path."""
    value = given if given is not None else from_path
    if value is None:
        raise ConfigError(f"the path of {file} does not say what {option} says: give {option}")
    return value
