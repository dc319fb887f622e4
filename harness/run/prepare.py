"""A run's prompts and manifests, the records already on disk, and the requests still to be computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from harness.compression.grid import Variant
from harness.compression.method import Method
from harness.compression.selection import Selection
from harness.compression.storage import Storage
from harness.config.build import wrapped_settings
from harness.config.names import recorded
from harness.config.outside import source_of, used
from harness.engine.prompt import Prompt, encode_prompts
from harness.engine.request import Request, by_context, in_prefix_order
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError, DataError
from harness.results import Cell, Manifest, Record
from harness.run.boundary import check_conversations, check_questions, check_suite
from harness.run.checkpoint import Checkpoint
from harness.run.fitting import check_plans, check_positions, check_storages
from harness.run.notes import run_note
from harness.run.requests import conversations, requests_of
from harness.run.stored import check_siblings, stored_records
from harness.run.texts import cleans_up
from harness.store.cells import cell_folder
from harness.store.manifest import fingerprint
from harness.store.order import in_order, method_places
from harness.store.places import cells_of_task
from harness.store.records import stamp
from harness.store.scoring import sampled_metrics
from harness.store.shards import Shard, Worker
from harness.task import Example, Metric, Task, published_examples
from harness.text import check_name


@dataclass(frozen=True)
class Run:
    """What a run was asked to compute for one task.

    Attributes:
        checkpoint: the model.
        variants: the grid of methods and budgets.
        task: the benchmark.
        task_config: the task's configuration, which manifests keep.
        selection: how entries are picked from scores.
        results: the results folder; None for a run that keeps everything in memory.
        limit: compute only this many examples, the first ones; None for all.
        engine_settings: how rows are computed.
        shard: the part of the examples that this process computes.
        retry_errors: whether to compute examples again whose record is an error.
        save_prompts: whether prompts are written beside the records as texts, for readers.
        sampling: how the answers of variants that draw them are drawn.
        examples: what is asked; None for the task's examples.
    """

    checkpoint: Checkpoint
    variants: tuple[Variant, ...]
    task: Task
    task_config: Mapping[str, Any]
    selection: Selection
    results: Path | None
    limit: int | None
    engine_settings: EngineSettings
    shard: Shard
    retry_errors: bool
    save_prompts: bool
    sampling: Sampling = GREEDY
    examples: Sequence[Example] | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of the task's records."""
        return sampled_metrics(self.task.metrics, self.sampling.drawn)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.checkpoint.spec.label

    def folder(self, cell: Cell) -> Path:
        """The folder of a cell; the run must have a results folder."""
        return cell_folder(self.folder_of_results, self.model, self.task.name, cell)

    @property
    def folder_of_results(self) -> Path:
        """The results folder; the run must have one."""
        assert self.results is not None
        return self.results


@dataclass(frozen=True)
class Prepared:
    """A run with its prompts and with what is on disk, before anything is written or any weight is read.

    Attributes:
        run: what was asked for.
        prompts: the prompts of all examples asked for, in order.
        manifests: the manifest of every cell, as it would be written now, in the order of tables.
        stamps: by cell, the stamp of the records files that were read.
        records: by cell and example, the records of the examples asked for.
        others: by cell, the records of other examples.
        requests: the prompts of this process's shard that lack a record, each with the variants that lack it.
    """

    run: Run
    prompts: Sequence[Prompt]
    manifests: Mapping[Cell, Manifest]
    stamps: Mapping[Cell, tuple[tuple[str, int], ...]]
    records: Mapping[Cell, dict[str, Record]]
    others: Mapping[Cell, Sequence[Record]]
    requests: Sequence[Request]

    @property
    def folder(self) -> Path:
        """The folder of the task, which contains those of its cells."""
        return self.run.folder(next(iter(self.manifests))).parent

    @property
    def own(self) -> list[Prompt]:
        """The prompts of this process's shard, in order; a conversation is in that of its first turn."""
        return [prompt for turns in self.conversations for prompt in turns]

    @property
    def conversations(self) -> list[tuple[Prompt, ...]]:
        """The prompts of this process's shard, in order, each with the turns that follow it."""
        places = {prompt.example.id: index for index, prompt in enumerate(self.prompts)}
        return [turns for turns in conversations(self.prompts) if self.run.shard.has(places[turns[0].example.id])]

    @property
    def worker(self) -> Worker:
        """The name under which this process writes to the store."""
        return self.run.shard.worker([prompt.example.id for prompt in self.prompts])

    @property
    def whole(self) -> bool:
        """Whether every example of every cell has a record, whichever process wrote it."""
        return all(prompt.example.id in by_id for by_id in self.records.values() for prompt in self.prompts)

    @property
    def done(self) -> bool:
        """Whether every example of this process's shard has a record that is no error in every cell."""
        return all(
            (record := by_id.get(prompt.example.id)) is not None and record.error is None
            for by_id in self.records.values()
            for prompt in self.own
        )


def prepare(run: Run) -> Prepared:
    """Check everything that can be checked without weights, and find out which records are missing.

    Raises:
        ConfigError, DataError, StoreError: a part of the run cannot be used; finished cells are untouched.
    """
    check_name(run.task.name, "task.name")
    config = run.checkpoint.config
    run.engine_settings.kernels_of(run.checkpoint.spec, config)
    task_settings = run.task.settings()
    examples = run.task.examples(run.checkpoint.tokenizer) if run.examples is None else run.examples
    if not examples:
        raise DataError(f"task={run.task.name} has no examples: check its settings")
    asked = range(len(examples))[: run.limit]
    if run.selection.after == "context":
        check_questions(run.task.name, [e for index in asked if (e := examples[index]).follows is None])
    prompts = encode_prompts(
        (examples[index] for index in asked), run.checkpoint.tokenizer, config.vocab_size, run.selection.after
    )
    plans = check_plans(run.variants, prompts, config, run.selection)
    check_conversations(run.task.name, [prompt.example for prompt in prompts], run.selection.after, plans)
    check_storages(run.variants, prompts, config, run.selection, run.task.max_new_tokens)
    check_positions(config, prompts, run.task.max_new_tokens)
    stops = run.task.stop_ids(run.checkpoint.tokenizer, run.checkpoint.end_ids)
    if unknown := [token for token in stops if not 0 <= token < config.vocab_size]:
        raise ConfigError(
            f"end token {unknown[0]} is none of the model's 0 to {config.vocab_size - 1}: use this model's "
            "tokenizer, or other ids"
        )
    common = {
        "model": run.checkpoint.identity,
        "task": {**task_settings, **source_of(type(run.task)), "stop_ids": sorted(stops)}
        | ({"clean_up": True} if cleans_up(run.task, run.checkpoint.tokenizer) else {}),
        "selection": asdict(run.selection),
    }
    note = run_note(run.checkpoint, prompts, run.task, run.task_config, run.selection.after)
    there = {} if run.results is None else cells_of_task(run.folder(run.variants[0].cell).parent)
    labels = {variant.cell.label: variant.method.scorer is None for variant in run.variants}
    places = method_places(there.values(), labels)
    manifests = {v.cell: _manifest(run, v, places[v.cell.label], common, note) for v in run.variants}
    order = in_order({manifest.cell: manifest for manifest in (*manifests.values(), *there.values())}.values())
    manifests = {cell: manifests[cell] for cell in order if cell in manifests}
    prepared = refreshed(Prepared(run, prompts, manifests, stamps={}, records={}, others={}, requests=()))
    check_siblings(there, next(iter(manifests.values())))
    if run.results is not None:
        check_suite(run.results / run.model, run.task_config.get("name"), run.task.name, run.selection.after)
    return prepared


def refreshed(prepared: Prepared) -> Prepared:
    """The same run with the records that are on disk now.

    Raises:
        StoreError: records belong to other settings or prompts, or cannot be read.
    """
    run, prompts = prepared.run, prepared.prompts
    stamps = {} if run.results is None else {cell: stamp(run.folder(cell)) for cell in prepared.manifests}
    if stamps and stamps == prepared.stamps:
        return prepared
    names = {prompt.example.id for prompt in prompts}
    stored = {cell: stored_records(run, manifest, prompts) for cell, manifest in prepared.manifests.items()}
    records = {cell: {name: by_id[name] for name in by_id if name in names} for cell, by_id in stored.items()}
    others = {cell: [by_id[name] for name in by_id if name not in names] for cell, by_id in stored.items()}
    requests = requests_of(prepared, records)
    if run.engine_settings.reuse_prefix:
        requests = in_prefix_order(requests)
    if run.selection.after == "context":
        requests = by_context(requests)
    return replace(prepared, stamps=stamps, records=records, others=others, requests=requests)


def storage_settings(storage: Storage) -> dict[str, Any]:
    """What a storage is known by, under ``storage``; nothing if entries are stored as they are."""
    knobs = {name: value for name, value in asdict(storage).items() if name != "label"}
    return {"storage": {"class": recorded(type(storage)), **knobs}} if not storage.exact else {}


def method_settings(method: Method) -> dict[str, Any]:
    """What a method is known by and can be built from again: its class, its knobs, and the method that it wraps.

    A knob called ``file`` names a file whose content counts, too.
    """
    knobs = {field.name: getattr(method, field.name) for field in fields(method) if field.name != "label"}
    for setting, field in wrapped_settings(type(method)).items():
        base = knobs.pop(field)
        knobs = {setting: None if base is None else {"label": base.label, **method_settings(base)}, **knobs}
    if isinstance(file := knobs.get("file"), str):
        knobs["file_sha256"] = hashlib.sha256(Path(file).expanduser().read_bytes()).hexdigest()
    return {"class": recorded(type(method)), **knobs, **source_of(type(method))}


def _manifest(run: Run, variant: Variant, place: int, common: Mapping[str, Any], note: str) -> Manifest:
    method = variant.method
    if not is_dataclass(method):
        raise ConfigError(
            f"method={variant.cell.label} is not a dataclass: its fields are what a result is known by; make it a "
            "frozen one"
        )
    # The end of the prompt is where manifests that do not say it have the boundary. A method that keeps everything
    # selects nothing, so that nothing else of the selection is one of its settings.
    boundary = {} if run.selection.after == "prompt" else {"after": run.selection.after}
    others = {name: value for name, value in common["selection"].items() if name != "after"}
    selection = boundary if method.scorer is None else {**others, **boundary}
    common = {name: value for name, value in common.items() if name != "selection"}
    common |= {"selection": selection} if selection else {}
    settings = {**common, "method": method_settings(method), "budget": variant.budget.text}
    settings |= storage_settings(variant.storage)
    if run.sampling.drawn:
        settings["sampling"] = {**asdict(run.sampling), **({} if variant.drawn else {"reference": "greedy"})}
    try:
        settings = json.loads(json.dumps(settings))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"settings of method={variant.cell.label} or task={run.task.name} cannot be written as JSON ({error}): "
            "make the fields of the method, and what task.settings() gives, plain numbers, texts, lists and mappings"
        ) from error
    return Manifest(
        cell=variant.cell,
        place=place,
        model=run.model,
        task=run.task.name,
        settings=settings,
        metrics=run.metrics,
        heatmap_axes=run.task.heatmap_axes,
        note=note,
        task_config=run.task_config,
        provenance={
            **run.checkpoint.provenance,
            **({"own_folders": [str(folder) for folder in used()]} if used() else {}),
            "fingerprint": fingerprint(settings),
        },
        breakdown=run.task.breakdown,
        published=published_examples(run.task),
    )
