"""What a run has to compute: its prompts, its cells as they would be written, and what of them is on disk already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compression.grid import Variant
from harness.compression.selection import Selection
from harness.config.method_path import source_of
from harness.config.names import recorded
from harness.engine.decode import Generated
from harness.engine.model_spec import ModelSpec, choose_device
from harness.engine.prompt import Prompt, encode_prompts
from harness.engine.request import Known, Request, in_prefix_order
from harness.engine.settings import EngineSettings
from harness.errors import BudgetError, ConfigError, DataError, StoreError
from harness.results import Cell, Manifest, Record
from harness.run.checkpoint import Checkpoint
from harness.store.cells import cell_folder
from harness.store.manifest import check_manifest, check_sibling, fingerprint, read_manifest
from harness.store.reader import check_axes
from harness.store.records import has_records, read_records, stamp
from harness.store.shards import Shard, Worker
from harness.task import Task, published_examples
from harness.text import check_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Run:
    """What was asked for, of one task.

    Attributes:
        checkpoint: the model.
        variants: the grid.
        task: the benchmark.
        task_config: its configuration, kept in manifests.
        selection: how entries are picked.
        results: the results folder; None for a run that reads and writes no disk.
        limit: only the first so many examples; None for all.
        engine_settings: how rows are computed.
        shard: which of the examples are this process's.
        retry_errors: compute examples again whose record is an error.
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

    @property
    def model(self) -> str:
        """The model's name."""
        return self.checkpoint.spec.label

    def folder(self, cell: Cell) -> Path:
        """Where a cell lies; there must be a results folder."""
        return cell_folder(self.folder_of_results, self.model, self.task.name, cell)

    @property
    def folder_of_results(self) -> Path:
        """The results folder; there must be one."""
        assert self.results is not None
        return self.results


@dataclass(frozen=True)
class Prepared:
    """A run with its prompts and with what is on disk; nothing has been written and no weight been read.

    Attributes:
        run: what was asked for.
        prompts: of all examples asked for, in order.
        manifests: of every cell, as it would be written now.
        stamps: of what is on disk, by cell.
        records: what is on disk of the examples asked for, by cell and example.
        others: what is on disk of other examples, by cell.
        requests: what is missing of this process's shard, prompt by prompt.
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
        """The task's."""
        return self.run.folder(next(iter(self.manifests))).parent

    @property
    def own(self) -> list[Prompt]:
        """The prompts of this process's shard, in order."""
        return [prompt for place, prompt in enumerate(self.prompts) if self.run.shard.has(place)]

    @property
    def worker(self) -> Worker:
        """Who this process is to the store."""
        return self.run.shard.worker([prompt.example.id for prompt in self.prompts])

    @property
    def whole(self) -> bool:
        """Whether every example of every cell has a record, whoever made it."""
        return all(prompt.example.id in of for of in self.records.values() for prompt in self.prompts)

    @property
    def done(self) -> bool:
        """Whether every example of this process's shard has a result in every cell."""
        return all(
            (record := of.get(p.example.id)) is not None and record.error is None
            for of in self.records.values()
            for p in self.own
        )


def prepare(run: Run) -> Prepared:
    """Check everything that can be checked without weights, and find out what is missing.

    Raises:
        ConfigError, DataError, StoreError: something of the run cannot be used; finished cells are untouched.
    """
    check_name(run.task.name, "task.name")
    run.engine_settings.kernels_on(choose_device(run.checkpoint.spec.device))
    config = run.checkpoint.config
    task_settings = run.task.settings()
    examples = run.task.examples(run.checkpoint.tokenizer)
    if not examples:
        raise DataError(f"task={run.task.name} has no examples: check its settings")
    asked = range(len(examples))[: run.limit]
    prompts = encode_prompts((examples[place] for place in asked), run.checkpoint.tokenizer, config.vocab_size)
    _check_shares(run.variants, prompts, config.num_hidden_layers)
    stops = run.task.stop_ids(run.checkpoint.tokenizer, run.checkpoint.end_ids)
    if unknown := [token for token in stops if not 0 <= token < config.vocab_size]:
        raise ConfigError(
            f"end token {unknown[0]} is none of the model's 0 to {config.vocab_size - 1}: use this model's "
            "tokenizer, or other ids"
        )
    common = {
        "model": run.checkpoint.identity,
        "task": {**task_settings, "stop_ids": sorted(stops)},
        "selection": asdict(run.selection),
    }
    note = _note(run.checkpoint.spec, config, prompts)
    manifests = {variant.cell: _manifest(run, variant, common, note) for variant in run.variants}
    prepared = refreshed(Prepared(run, prompts, manifests, stamps={}, records={}, others={}, requests=()))
    if run.results is not None:
        _check_siblings(run, next(iter(manifests.values())))
    return prepared


def refreshed(prepared: Prepared) -> Prepared:
    """The same with what is on disk by now.

    Raises:
        StoreError: something there is of other settings or prompts, or cannot be read.
    """
    run, prompts = prepared.run, prepared.prompts
    stamps = {} if run.results is None else {cell: stamp(run.folder(cell)) for cell in prepared.manifests}
    if stamps and stamps == prepared.stamps:
        return prepared
    names = {prompt.example.id for prompt in prompts}
    found = {cell: _on_disk(run, manifest, prompts) for cell, manifest in prepared.manifests.items()}
    records = {cell: {name: record for name, record in of.items() if name in names} for cell, of in found.items()}
    others = {cell: [record for name, record in of.items() if name not in names] for cell, of in found.items()}
    requests = []
    for prompt in prepared.own:
        example = prompt.example.id
        done = {cell: by_example[example] for cell, by_example in records.items() if example in by_example}
        if run.retry_errors:
            done = {cell: record for cell, record in done.items() if record.error is None}
        missing = tuple(variant for variant in run.variants if variant.cell not in done)
        if missing:
            known = {
                cell: Known(record.kept_sha256, Generated(tuple(record.tokens), record.error))
                for cell, record in done.items()
                if record.kept_sha256 is not None
            }
            requests.append(Request(prompt, missing, known))
    if run.engine_settings.reuse_prefix:
        requests = in_prefix_order(requests)
    return replace(prepared, stamps=stamps, records=records, others=others, requests=requests)


def _manifest(run: Run, variant: Variant, common: Mapping[str, Any], note: str) -> Manifest:
    method = variant.method
    if not is_dataclass(method):
        raise ConfigError(
            f"method={variant.cell.label} is not a dataclass: its fields are what a result is known by; make it a "
            "frozen one"
        )
    knobs = {field.name: getattr(method, field.name) for field in fields(method) if field.name != "label"}
    # What keeps everything selects nothing.
    common = {name: value for name, value in common.items() if name != "selection" or method.ranking is not None}
    settings = {
        **common,
        "method": {"class": recorded(type(method)), **knobs, **source_of(type(method))},
        "budget": variant.budget.text,
    }
    settings = json.loads(json.dumps(settings))
    return Manifest(
        cell=variant.cell,
        place=run.variants.index(variant),
        model=run.model,
        task=run.task.name,
        settings=settings,
        metrics=run.task.metrics,
        heatmap_axes=run.task.heatmap_axes,
        note=note,
        task_config=run.task_config,
        provenance={**run.checkpoint.provenance, "fingerprint": fingerprint(settings)},
        breakdown=run.task.breakdown,
        published=published_examples(run.task),
    )


def _on_disk(run: Run, manifest: Manifest, prompts: Sequence[Prompt]) -> dict[str, Record]:
    """What a cell's folder holds; nothing without a results folder.

    Raises:
        StoreError: the folder was made with other settings, or from another prompt, or is not scored.
    """
    if run.results is None:
        return {}
    folder = run.folder(manifest.cell)
    found = read_manifest(folder)
    if found is None or not has_records(folder):
        return {}
    check_manifest(folder, found, manifest)
    records = read_records(folder)
    check_axes(f"{run.model}/{run.task.name}/{manifest.cell.name}", run.task.heatmap_axes, records.values())
    names = {metric.name for metric in run.task.metrics}
    if any(record.error is None and not names <= record.scores.keys() for record in records.values()):
        raise StoreError(
            f"{folder} has records without the scores it is to have: score them with kvgauge score {folder.parent}"
        )
    for prompt in prompts:
        record = records.get(prompt.example.id)
        if record is not None and record.prompt_sha256 != prompt.sha256:
            raise StoreError(
                f"example {prompt.example.id!r} in {folder} was made from another prompt than it has now: use "
                "another results_dir, or delete that folder"
            )
    return records


def _check_siblings(run: Run, wanted: Manifest) -> None:
    """Refuse to put cells beside cells of another model, or of the task with other settings."""
    for path in sorted(run.folder(wanted.cell).parent.glob("*/manifest.json")):
        found = read_manifest(path.parent)
        if found is not None and found.cell != wanted.cell and has_records(path.parent):
            check_sibling(path.parent, found, wanted)


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
        notes.append(
            f"{beyond} of {len(prompts)} prompts are longer than the {positions} positions this model is made for."
        )
    return " ".join(notes)
