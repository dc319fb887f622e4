"""A run: from a grid and a task to whole cells, computing only what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from harness.aggregate import cell_summary
from harness.errors import BudgetError, ConfigError, DataError, StoreError
from harness.evaluate import Evaluator, Job
from harness.grid import Variant
from harness.model import ModelSpec, choose_device
from harness.names import check_name
from harness.progress import Bar
from harness.prompt import Prompt, encode_prompts
from harness.provenance import provenance
from harness.schema import Cell, CellResult, Manifest, Record, Selection, TaskResult
from harness.store import CellWriter, cell_folder, check_manifest, read_manifest, read_records
from harness.task import Task

_RESERVED = ("report", "published")


@dataclass(frozen=True)
class Run:
    """What was asked for.

    Attributes:
        spec: the model.
        variants: the grid.
        task: the benchmark.
        selection: how entries are picked.
        results: the results folder.
        limit: only the first so many examples; None for all.
        width: rows decoded together at most.
    """

    spec: ModelSpec
    variants: tuple[Variant, ...]
    task: Task
    selection: Selection
    results: Path
    limit: int | None
    width: int


@dataclass(frozen=True)
class Prepared:
    """A run with its prompts and with what is on disk; nothing has been written and no weight been read.

    Attributes:
        run: what was asked for.
        config: the model's.
        tokenizer: the model's, where the task needs one.
        prompts: of all examples asked for, in order.
        manifests: of every cell, as it would be written now.
        records: what is on disk of the examples asked for, by cell and example.
        jobs: what is missing, prompt by prompt.
    """

    run: Run
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase | None
    prompts: Sequence[Prompt]
    manifests: Mapping[Cell, Manifest]
    records: Mapping[Cell, dict[str, Record]]
    jobs: Sequence[Job]


@dataclass(frozen=True)
class Counts:
    """What one run had to do."""

    prompts: int
    prefills: int
    decoded_rows: int
    records: int


def prepare(run: Run) -> Prepared:
    """Check everything that can be checked without weights, and find out what is missing.

    Raises:
        ConfigError, DataError, ModelError, StoreError: something of the run cannot be used; finished cells are untouched.
    """
    if run.spec.label in _RESERVED:
        raise ConfigError(f"model.name={run.spec.label} is the name of another folder in the results: use another model.name")
    check_name(run.task.name, "task.name")
    config = run.spec.config()
    tokenizer = run.spec.tokenizer() if run.task.needs_tokenizer else None
    task_settings = run.task.settings()
    examples = run.task.examples(tokenizer)
    if not examples:
        raise DataError(f"task={run.task.name} has no examples: check its settings")
    prompts = encode_prompts(examples[: run.limit], tokenizer, config.vocab_size)
    _check_shares(run.variants, prompts, config.num_hidden_layers)
    common = {"model": run.spec.identity(config), "task": task_settings, "selection": asdict(run.selection)}
    where = provenance(str(choose_device(run.spec.device)))
    manifests = {variant.cell: _manifest(run, variant, common, _note(run.spec, config, prompts), where) for variant in run.variants}
    records = {cell: _on_disk(run, manifest, prompts) for cell, manifest in manifests.items()}
    jobs = []
    for prompt in prompts:
        name = prompt.example.id
        missing = tuple(variant for variant in run.variants if name not in records[variant.cell])
        if missing:
            jobs.append(Job(prompt, missing, {cell: of[name] for cell, of in records.items() if name in of}))
    return Prepared(run, config, tokenizer, prompts, manifests, records, jobs)


def execute(prepared: Prepared, console: Console) -> Counts:
    """Compute what is missing and write it, batch by batch; then the scores of every cell.

    Raises:
        KvgaugeError: what was finished before is kept.
    """
    run = prepared.run
    with ExitStack() as stack:
        writers = {
            cell: stack.enter_context(closing(CellWriter(cell_folder(run.results, run.spec.label, run.task.name, cell), manifest)))
            for cell, manifest in prepared.manifests.items()
        }
        counts = Counts(len(prepared.prompts), 0, 0, 0)
        if prepared.jobs:
            counts = _compute(prepared, writers, console)
        for cell_result in result(prepared).cells:
            writers[cell_result.cell].finish(cell_summary(cell_result, run.task.metrics))
    return counts


def result(prepared: Prepared) -> TaskResult:
    """The grid as far as it is known."""
    run = prepared.run
    names = [prompt.example.id for prompt in prepared.prompts]
    return TaskResult(
        model=run.spec.label,
        task=run.task.name,
        metrics=run.task.metrics,
        heatmap_axes=run.task.heatmap_axes,
        note=next(iter(prepared.manifests.values())).note,
        cells=tuple(
            CellResult(cell, len(names), tuple(records[name] for name in names if name in records))
            for cell, records in prepared.records.items()
        ),
    )


def _compute(prepared: Prepared, writers: Mapping[Cell, CellWriter], console: Console) -> Counts:
    run = prepared.run
    tell: Callable[[str], None] = lambda line: console.print(line, soft_wrap=True, markup=False, highlight=False)  # noqa: E731
    evaluator = Evaluator(
        run.spec.load(prepared.config),
        run.spec.label,
        prepared.tokenizer,
        run.spec.end_ids(prepared.config, prepared.tokenizer),
        run.task,
        list(prepared.manifests),
        run.selection,
        run.width,
        tell,
    )
    jobs = list(prepared.jobs)
    written = 0
    with Bar(console, "prompts", len(jobs)) as bar:
        while jobs:
            batch = evaluator.batch(jobs)
            for cell, records in evaluator.records(batch).items():
                writers[cell].append(records)
                prepared.records[cell].update({record.example_id: record for record in records})
                written += len(records)
            bar.advance(len(batch))
            jobs = jobs[len(batch) :]
    return Counts(len(prepared.prompts), evaluator.prefills, evaluator.decoded, written)


def _manifest(run: Run, variant: Variant, common: Mapping[str, Any], note: str, where: Mapping[str, Any]) -> Manifest:
    method = variant.method
    if not is_dataclass(method):
        raise ConfigError(f"method={variant.cell.label} is not a dataclass: its fields are what a result is known by; make it a frozen one")
    knobs = {field.name: getattr(method, field.name) for field in fields(method) if field.name != "label"}
    settings = {
        **common,
        "method": {"class": f"{type(method).__module__}.{type(method).__qualname__}", **knobs},
        "budget": variant.budget.text,
    }
    return Manifest(
        cell=variant.cell,
        model=run.spec.label,
        task=run.task.name,
        settings=json.loads(json.dumps(settings)),
        metrics=[asdict(metric) for metric in run.task.metrics],
        heatmap_axes=run.task.heatmap_axes,
        note=note,
        provenance=where,
    )


def _on_disk(run: Run, manifest: Manifest, prompts: Sequence[Prompt]) -> dict[str, Record]:
    """What a cell's folder holds of the prompts.

    Raises:
        StoreError: the folder was made with other settings, or from another prompt.
    """
    folder = cell_folder(run.results, run.spec.label, run.task.name, manifest.cell)
    found = read_manifest(folder)
    if found is None:
        return {}
    check_manifest(folder, found, manifest)
    records = read_records(folder)
    known = {prompt.example.id: records[prompt.example.id] for prompt in prompts if prompt.example.id in records}
    for prompt in prompts:
        record = known.get(prompt.example.id)
        if record is not None and record.prompt_sha256 != prompt.sha256:
            raise StoreError(
                f"example {prompt.example.id!r} in {folder} was made from another prompt than it has now: use another results_dir, or "
                "delete that folder"
            )
    return known


def _check_shares(variants: Sequence[Variant], prompts: Sequence[Prompt], layers: int) -> None:
    """Refuse a share of the prompt that no prompt is long enough for; one that some are too short for gives those an error record."""
    longest = max(len(prompt.ids) for prompt in prompts)
    for variant in variants:
        if variant.budget.share is not None:
            try:
                variant.plan(longest, layers)
            except BudgetError as error:
                raise BudgetError(f"no prompt of the task is long enough for {error}") from error


def _note(spec: ModelSpec, config: PretrainedConfig, prompts: Sequence[Prompt]) -> str:
    notes = [spec.note] if spec.note else []
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and (beyond := sum(len(prompt.ids) > positions for prompt in prompts)):
        notes.append(f"{beyond} of {len(prompts)} prompts are longer than the {positions} positions this model is made for.")
    return " ".join(notes)
