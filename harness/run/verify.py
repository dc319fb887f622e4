"""Whether a cell's files are what they say: hashes, plans and scores computed again and, with the model, a sample of its records.

Prompts, manifests and records are made by the parts that make them in a run. A finding is one line; a cell without one
holds.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import structs

from harness.compression.grid import Variant
from harness.compression.selection import Selection
from harness.engine.engine import Engine
from harness.engine.request import Request
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError, StoreError
from harness.results import Cell, Record
from harness.run.checkpoint import Checkpoint
from harness.run.evaluate import evaluate, make_scheduler
from harness.run.prepare import Prepared, Run, prepare
from harness.run.verdict import Verdict, _alike, _plain
from harness.store.manifest import difference
from harness.store.reader import Grid
from harness.store.rescoring import recorded_task
from harness.store.shards import Shard

_SELECTION = Selection(
    "query_head", "mean", "stable", "float32"
)  # of a cell that keeps everything, and selects nothing
_COMPUTED = {
    "kept indices": ("kept", "kept_sha256"),
    "ties": ("tied_heads",),
    "bytes": ("kept_bytes", "retention_bytes"),
    "tokens": ("tokens",),
}
"""Fields of a record that only the model gives, and how they are called."""


def prepared_again(
    grid: Grid,
    variants: Mapping[Cell, Variant],
    checkpoint: Checkpoint,
    engine_settings: EngineSettings,
    asked: Mapping[str, Any],
) -> Iterator[Prepared]:
    """The run of a task's cells as it would be begun today, one for each selection that they were made with.

    Args:
        grid: the task's cells.
        variants: as ``without_model`` found them.
        checkpoint: the model.
        engine_settings: how rows would be computed.
        asked: settings of the task that say which examples were asked for, where the manifests' are not the last.

    Raises:
        KvgaugeError: it cannot be begun.
    """
    together: dict[Selection, list[Variant]] = {}
    for cell, variant in variants.items():
        settings = grid.manifests[cell].settings.get("selection")
        try:
            selection = _SELECTION if settings is None else Selection(**settings)
        except (TypeError, ConfigError) as error:
            raise StoreError(
                f"selection in the manifest of {grid.folders[cell]} is not one ({error}): restore the manifest"
            ) from error
        together.setdefault(selection, []).append(variant)
    for selection, of in together.items():
        manifest = grid.manifests[of[0].cell]
        manifest = structs.replace(manifest, task_config={**manifest.task_config, **asked})
        with tempfile.TemporaryDirectory() as empty:  # so that everything is to be computed
            task = recorded_task(manifest, grid.folders[of[0].cell])
            run = Run(
                checkpoint=checkpoint,
                variants=tuple(of),
                task=task,
                task_config=manifest.task_config,
                selection=selection,
                results=Path(empty),
                limit=None,
                engine_settings=engine_settings,
                shard=Shard(0, 1),
                retry_errors=False,
            )
            yield prepare(run)


def with_data(grid: Grid, prepared: Prepared, verdicts: Mapping[Cell, Verdict]) -> None:
    """Settings and prompts: those of the manifest and the records, and those that the model's files and the task's data give now."""
    prompts = {prompt.example.id: prompt for prompt in prepared.prompts}
    checkpoint = prepared.run.checkpoint
    tokenizer, layers = checkpoint.tokenizer, checkpoint.config.num_hidden_layers
    for result in grid.result.cells:
        if result.cell not in prepared.manifests:
            continue
        verdict = verdicts[result.cell]
        verdict.examples = len(prompts)
        if differs := difference(grid.manifests[result.cell].settings, prepared.manifests[result.cell].settings):
            name, then, now = differs
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
            "prompts", ((r, (r.prompt_sha256, r.prompt_tokens) == (of.sha256, len(of.ids))) for r, of in known)
        )
        for name, what in (("references", "references"), ("group", "groups"), ("details", "details")):
            verdict.compare(
                what, ((r, _plain(getattr(r, name)) == _plain(getattr(of.example, name))) for r, of in known)
            )
        verdict.compare("layers", ((r, len(r.kept) == layers) for r in result.done))
        if tokenizer is not None:
            told = (r for r in result.done if r.text is not None)
            verdict.compare(
                "texts", ((r, tokenizer.decode(list(r.tokens), skip_special_tokens=True) == r.text) for r in told)
            )


def with_model(grid: Grid, prepared: Prepared, engine: Engine, sample: int, verdicts: Mapping[Cell, Verdict]) -> None:
    """Prefill and decode a sample of examples again: the same for all cells, drawn by the task's name.

    Args:
        grid: the task's cells.
        prepared: their run as it would be begun today.
        engine: the model.
        sample: examples; all if there are fewer.
        verdicts: by cell.
    """
    done = {
        cell.cell: {record.example_id: record for record in cell.done}
        for cell in grid.result.cells
        if cell.cell in prepared.manifests
    }
    names = sorted(
        prompt.example.id for prompt in prepared.prompts if any(prompt.example.id in of for of in done.values())
    )
    chosen = set(random.Random(grid.result.task).sample(names, min(sample, len(names))))
    requests = [
        Request(
            request.prompt, tuple(v for v in request.missing if request.prompt.example.id in done[v.cell]), known={}
        )
        for request in prepared.requests
        if request.prompt.example.id in chosen
    ]
    again: dict[Cell, list[Record]] = {cell: [] for cell in done}
    scheduler = make_scheduler(prepared.run, engine, lambda _: None)
    for prompts in evaluate(prepared.run, scheduler, requests, lambda: True):
        for by_cell in prompts:
            for cell, record in by_cell.items():
                again[cell].append(record)
    for cell, records in again.items():
        pairs = [(record, done[cell][record.example_id]) for record in records]
        of = f"of {len(pairs)} computed again"
        for what, fields in _COMPUTED.items():
            alike = (
                (old, all(_alike(getattr(new, name), getattr(old, name)) for name in fields)) for new, old in pairs
            )
            verdicts[cell].compare(what, alike, of)
        if len(pairs) < sample:
            verdicts[cell].open.append(f"{len(pairs)} of {sample} records that were asked for were computed again")
