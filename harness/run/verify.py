"""Whether a cell's files are what they say: hashes, plans and scores computed again and, with the model, a sample of its records.

Prompts, manifests and records are made by the parts that make them in a run. A finding is one line; a cell without one
holds.
"""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs, to_builtins

from harness.compression.budget import parse_budget
from harness.compression.grid import Variant
from harness.compression.selection import Selection
from harness.config.build import recorded_method
from harness.config.catalog import Choice
from harness.engine.engine import Engine
from harness.engine.request import Request
from harness.engine.settings import EngineSettings
from harness.errors import BudgetError, ConfigError, StoreError
from harness.report.stats.summary import cell_summary
from harness.results import Cell, CellResult, Manifest, Record
from harness.run.evaluate import evaluate, make_scheduler
from harness.run.prepare import Checkpoint, Prepared, Run, prepare
from harness.store.cells import read_scores
from harness.store.manifest import difference, fingerprint
from harness.store.reader import Grid
from harness.store.rescoring import recorded_task, rescored
from harness.store.shards import Shard
from harness.task import Metric, Task, published_examples

_SELECTION = Selection(
    "query_head", "mean", "stable", "float32"
)  # of a cell that keeps everything, and selects nothing
_CLOSE = 1e-9
_COMPUTED = {
    "kept indices": ("kept", "kept_sha256"),
    "ties": ("tied_heads",),
    "bytes": ("kept_bytes", "retention_bytes"),
    "tokens": ("tokens",),
}
"""Fields of a record that only the model gives, and how they are called."""


@dataclass
class Verdict:
    """What was found of one cell.

    Attributes:
        cell: which one.
        records: how many it has.
        checked: what was computed again, in words.
        examples: of the task, where its data could be read.
        wrong: what does not agree.
        open: what could not be told.
    """

    cell: Cell
    records: int
    examples: int | None = None
    checked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def compare(self, what: str, alike: Iterable[tuple[Record, bool]], of: str = "records") -> None:
        """Note whether records agree in something; nothing where there is none to tell it of."""
        found = list(alike)
        names = [record.example_id for record, same in found if not same]
        if names:
            self.wrong.append(
                f"{what} of {len(names)} {of} {'differs' if len(names) == 1 else 'differ'} (the first: {names[0]!r})"
            )
        elif found:
            self.checked.append(what)


def without_model(grid: Grid, methods: Sequence[Choice]) -> tuple[dict[Cell, Verdict], dict[Cell, Variant]]:
    """What records and manifests say of themselves: fingerprint, kept entries, aliases, scores, summary.

    Args:
        grid: a task's cells.
        methods: whose code may be used; a class that is none of them is not imported.

    Returns:
        The verdicts, and the variants of those cells whose method is known.

    Raises:
        KvgaugeError: the task cannot be made.
    """
    verdicts, variants = {}, {}
    by_name = {cell.cell.name: {record.example_id: record for record in cell.records} for cell in grid.result.cells}
    for result in grid.result.cells:
        cell, manifest, folder = result.cell, grid.manifests[result.cell], grid.folders[result.cell]
        verdict = verdicts[cell] = Verdict(cell, len(result.records))
        task = recorded_task(manifest, folder)
        _check_fingerprint(manifest, verdict)
        _check_metrics(manifest, task, verdict)
        variant = _variant(manifest, methods, verdict)
        if variant is not None:
            variants[cell] = variant
            verdict.compare("kept entries", ((r, _is_planned(r, variant)) for r in result.done))
            aliases = [r for r in result.done if r.alias_of in by_name]
            verdict.compare("aliases", ((r, _is_alias(r, by_name[str(r.alias_of)].get(r.example_id))) for r in aliases))
        verdict.compare("scores", ((r, _same(rescored(r, task).scores, r.scores)) for r in result.done))
        _check_summary(result, grid.result.metrics, read_scores(folder), verdict)
        if result.errors:
            verdict.open.append(f"{result.errors} error records: not computed again")
    return verdicts, variants


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


def _check_fingerprint(manifest: Manifest, verdict: Verdict) -> None:
    said = manifest.provenance.get("fingerprint")
    if said is None:
        verdict.open.append("its manifest has no fingerprint")
    elif said != fingerprint(manifest.settings):
        verdict.wrong.append("the manifest's settings are not those of its fingerprint")
    else:
        verdict.checked.append("fingerprint")


def _check_metrics(manifest: Manifest, task: Task, verdict: Verdict) -> None:
    """Whether what tables and plots go by is what the task says."""
    made = {
        "metrics": task.metrics,
        "heatmap_axes": task.heatmap_axes,
        "breakdown": task.breakdown,
        "published": published_examples(task),
    }
    if wrong := [name for name, value in made.items() if _plain(getattr(manifest, name)) != _plain(value)]:
        verdict.wrong.append(f"the manifest's {wrong[0]} are not those of its task")
    else:
        verdict.checked.append("metrics")


def _variant(manifest: Manifest, methods: Sequence[Choice], verdict: Verdict) -> Variant | None:
    """The cell's method, made from its settings; None of an imported cell, or of a class that is not known here."""
    if "method" not in manifest.settings:
        verdict.open.append("imported: nobody knows what was kept")
        return None
    said = manifest.settings["method"]
    if not isinstance(said.get("class"), str):
        verdict.wrong.append("its settings name no method")
        return None
    knobs = {name: value for name, value in said.items() if name not in ("class", "source_sha256")}
    target = said["class"]
    if target not in {method.target for method in methods}:
        verdict.open.append(f"its method {target[:80]} is not here (--method-path says where methods of your own are)")
        return None
    try:
        return Variant(
            manifest.cell, recorded_method(target, manifest.cell.label, knobs), parse_budget(manifest.cell.budget)
        )
    except ConfigError as error:
        verdict.wrong.append(f"its settings make no method ({error})")
        return None


def _is_planned(record: Record, variant: Variant) -> bool:
    """Whether a record kept what its budget gives, and says the share that this is."""
    if record.prompt_tokens is None or not record.kept:
        return False
    try:
        plan = variant.plan(record.prompt_tokens, len(record.kept))
    except BudgetError:
        return False
    share = sum(record.kept) / len(record.kept) / record.prompt_tokens
    return (
        list(plan.keep) == list(record.kept)
        and record.retention is not None
        and math.isclose(share, record.retention, rel_tol=_CLOSE)
    )


def _is_alias(record: Record, other: Record | None) -> bool:
    """Whether the cell that an alias names kept and generated the same; nothing is wrong where it is not on disk."""
    return other is None or (other.kept_sha256, list(other.tokens)) == (record.kept_sha256, list(record.tokens))


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return one.keys() == other.keys() and all(math.isclose(one[name], other[name], rel_tol=_CLOSE) for name in one)


def _check_summary(
    result: CellResult, metrics: Sequence[Metric], said: Mapping[str, Any] | None, verdict: Verdict
) -> None:
    """Whether ``scores.json`` is what the records give."""
    if said is None:
        verdict.open.append("unfinished: no scores.json")
        return
    expected = said.get("expected")
    if type(expected) is not int or expected < len(result.records):
        verdict.wrong.append(
            f"scores.json says expected={str(expected)[:60]}, but there are {len(result.records)} records"
        )
        return
    again = cell_summary(CellResult(result.cell, expected, result.records), metrics)
    wrong = [
        name
        for name in {**said, **again}
        if name not in said or name not in again or not _equal(said[name], again[name])
    ]
    if wrong:
        verdict.wrong.append(
            f"scores.json says {wrong[0][:60]}={str(said.get(wrong[0]))[:60]}, its records give {again.get(wrong[0])}"
        )
    else:
        verdict.checked.append("scores.json")


def _plain(value: object) -> Any:
    """A value as JSON gives it back."""
    return json.loads(json.dumps(value, default=to_builtins))


def _alike(one: Any, other: Any) -> bool:
    return list(one) == list(other) if isinstance(one, list | tuple) else _equal(one, other)


def _equal(one: Any, other: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (one, other))
    return math.isclose(one, other, rel_tol=_CLOSE) if numbers else bool(one == other)
