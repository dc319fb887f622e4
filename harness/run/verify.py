"""Checks of a cell that need the task's data or the model: settings, prompts, and a sample of records computed again.

Prompts, manifests and records are made here by the same code as in a run.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from msgspec import structs

from harness.compression.grid import Variant
from harness.compression.selection import Selection
from harness.engine.engine import Engine
from harness.engine.layer_forms import layer_windows
from harness.engine.request import Request
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError, StoreError
from harness.kernels import Kernels
from harness.results import Cell, Record
from harness.run.checkpoint import Checkpoint
from harness.run.evaluate import evaluate, make_scheduler
from harness.run.prepare import Prepared, Run, prepare
from harness.run.texts import generated_text
from harness.run.verdict import Verdict, as_json, equal
from harness.store.manifest import difference
from harness.store.reader import Grid
from harness.store.rescoring import recorded_task
from harness.store.run_log import read_runs
from harness.store.shards import Shard
from harness.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SELECTION = Selection("query_head", "mean", "stable", "float32")
"""Stands in for cells that keep everything, and so record of the selection its boundary at most."""
_COMPUTED = {
    "kept indices": ("kept", "kept_sha256"),
    "ties": ("tied_heads",),
    "bytes": ("kept_bytes", "retention_bytes", "bits"),
    "tokens": ("tokens", "samples"),
}
"""Fields of a record that can only be computed with the model, under the names that findings give them."""


def prepared_again(
    grid: Grid,
    variants: Mapping[Cell, Variant],
    checkpoint: Checkpoint,
    engine_settings: EngineSettings,
    asked: Mapping[str, Any],
) -> Iterator[tuple[Prepared, int]]:
    """The runs that would make a task's cells today, one for each selection that they were made with.

    Each has the examples up to the last recorded one, and comes with the number of all: the others of a trial can take
    long to make, and one that cannot be made says nothing of those that were.

    Args:
        grid: the task's cells.
        variants: as ``without_model`` found them.
        checkpoint: the model.
        engine_settings: how rows are computed.
        asked: settings of the task that differ from the manifests', for cells to which a later run added examples.

    Raises:
        KvgaugeError: a run cannot be prepared.
    """
    by_selection: dict[tuple[Selection, Sampling], list[Variant]] = {}
    for cell, variant in variants.items():
        settings = grid.manifests[cell].settings.get("selection", {})
        try:
            selection = replace(_SELECTION, **settings) if settings.keys() <= {"after"} else Selection(**settings)
            drawn = dict(grid.manifests[cell].settings.get("sampling", {}))
            drawn.pop("reference", None)
            sampling = Sampling(**drawn) if drawn else GREEDY
        except (TypeError, ConfigError) as error:
            raise StoreError(
                f"selection or sampling in the manifest of {grid.folders[cell]} is not one ({error}): restore the "
                "manifest"
            ) from error
        by_selection.setdefault((selection, sampling), []).append(variant)
    for (selection, sampling), selected in by_selection.items():
        first = selected[0].cell
        manifest = grid.manifests[first]
        manifest = structs.replace(manifest, task_config={**manifest.task_config, **asked})
        # Runs that asked for other examples wrote manifests of their own for the cells that they began.
        configs = {
            json.dumps(config, sort_keys=True): config
            for config in ({**grid.manifests[cell].task_config, **asked} for cell in (first, *variants))
        }
        with tempfile.TemporaryDirectory() as empty:  # an empty results folder, so that every record is missing
            tasks = [
                recorded_task(structs.replace(manifest, task_config=config), grid.folders[first])
                for config in configs.values()
            ]
            cells = {variant.cell for variant in selected}
            recorded = {r.example_id for one in grid.result.cells if one.cell in cells for r in one.records}
            examples = _examples(tasks, checkpoint.tokenizer, recorded)
            run = Run(
                checkpoint=checkpoint,
                variants=tuple(selected),
                task=tasks[0],
                task_config=manifest.task_config,
                selection=selection,
                results=Path(empty),
                limit=_reach(examples, recorded),
                engine_settings=engine_settings,
                shard=Shard(0, 1),
                retry_errors=False,
                save_prompts=False,
                sampling=sampling,
                examples=examples,
            )
            yield prepare(run), len(examples)


def _examples(
    tasks: Sequence[Task], tokenizer: PreTrainedTokenizerBase | None, recorded: Set[str]
) -> Sequence[Example]:
    """The examples of the first task, and those recorded ones that only the others have."""
    examples = tasks[0].examples(tokenizer)
    for task in tasks[1:]:
        known = {example.id for example in examples}
        examples = [
            *examples,
            *(each for each in task.examples(tokenizer) if each.id in recorded and each.id not in known),
        ]
    return examples


def _reach(examples: Sequence[Example], recorded: Set[str]) -> int | None:
    """Number of examples up to the last recorded one; None for all of them."""
    missing = set(recorded)
    if len(missing) < len(examples):
        for number in range(len(examples)):
            missing.discard(examples[number].id)
            if not missing:
                return number + 1
    return None


def with_data(grid: Grid, prepared: Prepared, examples: int, verdicts: Mapping[Cell, Verdict]) -> None:
    """Compare recorded settings, prompts and texts with what the model's files and the task's data give now.

    Args:
        grid: the task's cells.
        prepared: a run of some of them, as it would be prepared today.
        examples: number of the task's examples.
        verdicts: by cell; findings are added to them.
    """
    prompts = {prompt.example.id: prompt for prompt in prepared.prompts}
    checkpoint = prepared.run.checkpoint
    tokenizer, layers = checkpoint.tokenizer, layer_windows(checkpoint.config).count(None)
    for result in grid.result.cells:
        if result.cell not in prepared.manifests:
            continue
        verdict = verdicts[result.cell]
        verdict.examples = examples
        if changed := difference(grid.manifests[result.cell].settings, prepared.manifests[result.cell].settings):
            name, then, now = changed
            verdict.wrong.append(f"made with {name}={then}, here it is {now}")
        else:
            verdict.checked.append("settings")
        known = [(record, prompts[record.example_id]) for record in result.records if record.example_id in prompts]
        if len(known) < len(result.records):
            verdict.wrong.append(
                f"{len(result.records) - len(known)} records are of examples that the manifest's task does not have "
                "(where a later run asked for more, say how: --set task.KNOB=VALUE)"
            )
        verdict.compare(
            "prompts",
            (
                (r, (r.prompt_sha256, r.prompt_tokens, r.compressed_tokens) == (p.sha256, len(p.ids), p.context_tokens))
                for r, p in known
            ),
        )
        for name, what in (("references", "references"), ("group", "groups"), ("details", "details")):
            verdict.compare(
                what, ((r, as_json(getattr(r, name)) == as_json(getattr(p.example, name))) for r, p in known)
            )
        verdict.compare("layers", ((r, len(r.kept) == layers) for r in result.done))
        if tokenizer is not None:
            verdict.compare(
                "texts",
                (
                    (r, generated_text(prepared.run.task, tokenizer, r.tokens) == r.text)
                    for r in result.done
                    if r.text is not None
                ),
            )


def kernels_of_runs(grid: Grid) -> list[Kernels]:
    """The kernels by which the records of a task were computed, as its run log says; none where nothing does."""
    folders = {folder.parent for folder in grid.folders.values()}
    said = {line.kernels for folder in folders for line in read_runs(folder)}
    return [kernels for kernels in get_args(Kernels) if kernels in said]


def with_model(
    grid: Grid,
    prepared: Prepared,
    engine: Engine,
    sample: int,
    made_by: Sequence[Kernels],
    verdicts: Mapping[Cell, Verdict],
) -> None:
    """Prefill and decode a sample of examples again, and compare the records.

    The sample is the same for all cells; it is drawn with the task's name as the seed.

    Args:
        grid: the task's cells.
        prepared: a run of some of them, as it would be prepared today.
        engine: the model.
        sample: number of examples; all if there are fewer.
        made_by: see ``kernels_of_runs``. Others round otherwise, so what differs then is not told to be wrong.
        verdicts: by cell; findings are added to them.
    """
    done = {
        cell.cell: {record.example_id: record for record in cell.done}
        for cell in grid.result.cells
        if cell.cell in prepared.manifests
    }
    names = sorted(
        prompt.example.id for prompt in prepared.prompts if any(prompt.example.id in by_id for by_id in done.values())
    )
    chosen = set(random.Random(grid.result.task).sample(names, min(sample, len(names))))
    requests = [
        Request(
            request.prompt,
            tuple(v for v in request.missing if any(turn.example.id in done[v.cell] for turn in request.turns)),
            known={},
            later=request.later,
        )
        for request in prepared.requests
        if any(prompt.example.id in chosen for prompt in request.turns)
    ]
    otherwise = bool(made_by) and list(made_by) != [engine.kernels]
    how = f" by {engine.kernels}, where runs took {' and '.join(made_by)}," if otherwise else ""
    again: dict[Cell, list[Record]] = {cell: [] for cell in done}
    scheduler = make_scheduler(prepared.run, engine, lambda _: None)
    for prompts in evaluate(prepared.run, scheduler, requests, lambda: True):
        for by_cell in prompts:
            for cell, record in by_cell.items():
                again[cell].append(record)
    for cell, records in again.items():
        pairs = [(record, done[cell][record.example_id]) for record in records if record.example_id in done[cell]]
        for what, fields in _COMPUTED.items():
            comparisons = (
                (old, all(_same_values(getattr(new, name), getattr(old, name)) for name in fields))
                for new, old in pairs
            )
            verdicts[cell].compare(what, comparisons, f"of {len(pairs)} computed again{how}", sure=not otherwise)
        if len(pairs) < sample:
            verdicts[cell].open.append(f"{len(pairs)} of {sample} records that were asked for were computed again")


def _same_values(one: Any, other: Any) -> bool:
    """Whether two fields of records are equal, sequences of any type by their items."""
    return list(one) == list(other) if isinstance(one, list | tuple) else equal(one, other)
