"""A run: from what is missing to whole cells."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from harness.engine import tensor_parallel
from harness.engine.loading import load_model
from harness.engine.memory import held_at_most, reset_peak
from harness.engine.model_spec import choose_device
from harness.report.stats.summary import cell_summary
from harness.results import Cell, CellResult, Record, TaskResult
from harness.run.evaluate import Evaluator
from harness.run.prepare import Prepared, Run, refreshed
from harness.run.progress import Bar
from harness.run.signals import Relay, Stop
from harness.store.cells import CellWriter, count_lines
from harness.store.run_log import logged
from harness.task import published_examples


@dataclass
class Counts:
    """What runs had to do."""

    prefills: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    decoded_rows: int = 0
    generated_tokens: int = 0
    records: int = 0


def execute(tasks: Sequence[Prepared], console: Console, stop: Stop) -> tuple[list[Prepared], Counts]:
    """Compute what is missing and write it, prompt by prompt; and the scores of every cell that is whole then.

    Args:
        tasks: runs of one model.
        console: for progress.
        stop: what a signal says.

    Returns:
        The runs as they are now, and what they took.

    Raises:
        KvgaugeError: what was finished before is kept.
    """
    for prepared in tasks:
        with _writers(prepared):
            pass  # a folder that cannot be written is found before the model is loaded
    counts, finished = Counts(), []
    missing = sum(len(prepared.jobs) for prepared in tasks)
    model = None
    if missing:
        tensor_parallel.say(("load",))
        model = _load(tasks[0].run)
    with Bar(console, "prompts", missing) as bar:
        for place, prepared in enumerate(tasks):
            with _writers(prepared) as writers:
                current = refreshed(prepared)  # what others wrote until this process had the locks
                bar.advance(len(prepared.jobs) - len(current.jobs))
                if model is not None and current.jobs:
                    tensor_parallel.say(("task", place, current.jobs))
                    counts = _compute(current, model, writers, counts, bar, stop)
                if current.run.shard.count > 1:
                    current = refreshed(current)  # what the other shards wrote
                _finish(current, writers)
                finished.append(current)
    return finished, counts


def follow(runs: Sequence[Run], relay: Relay) -> None:
    """What ``execute`` is to a process that is not the first: compute, on its heads, what the first one says, and keep nothing of it.

    Args:
        runs: of one model, in the order of the first process's.
        relay: signals, of which the first process hears before prompts are taken, and at the end.

    Raises:
        KvgaugeError: as in the first process, or memory ran out in this one.
    """

    def more() -> bool:
        return tensor_parallel.most(relay.heard[0] if relay.heard else 0) == 0

    while (order := tensor_parallel.hear()) is not None:
        match order:
            case ("load",):
                model = _load(runs[0])
            case ("task", place, jobs):
                for _ in _evaluator(runs[place], model, lambda _: None).run(jobs, more):
                    pass
                more()


def result(prepared: Prepared) -> TaskResult:
    """The grid as far as it is known."""
    run = prepared.run
    names = [prompt.example.id for prompt in prepared.prompts]
    return TaskResult(
        model=run.model,
        task=run.task.name,
        metrics=run.task.metrics,
        heatmap_axes=run.task.heatmap_axes,
        note=next(iter(prepared.manifests.values())).note,
        cells=tuple(
            CellResult(cell, len(names), tuple(records[name] for name in names if name in records))
            for cell, records in prepared.records.items()
        ),
        breakdown=run.task.breakdown,
        published=published_examples(run.task),
    )


def has_more(prepared: Prepared) -> bool:
    """Whether the folder of the task holds cells or examples that this run did not ask for."""
    return any(prepared.others.values()) or {path.parent.name for path in prepared.folder.glob("*/scores.json")} > {
        cell.name for cell in prepared.manifests
    }


@contextmanager
def _writers(prepared: Prepared) -> Iterator[Mapping[Cell, CellWriter]]:
    worker = prepared.worker
    with ExitStack() as stack:
        yield {
            cell: stack.enter_context(closing(CellWriter(prepared.run.folder(cell), manifest, worker)))
            for cell, manifest in prepared.manifests.items()
        }


def _finish(prepared: Prepared, writers: Mapping[Cell, CellWriter]) -> None:
    """Write the scores of the cells that have every example: of all, but where other shards are still at work."""
    shared = prepared.run.shard.count > 1
    for of in result(prepared).cells:
        if len(of.records) == of.expected:
            records = (*of.records, *prepared.others[of.cell])
            everything = CellResult(of.cell, len(records), records)
            scores = cell_summary(everything, prepared.run.task.metrics)
            writers[of.cell].finish(scores, prepared.stamps[of.cell] if shared else None)


def _compute(
    prepared: Prepared, model: PreTrainedModel, writers: Mapping[Cell, CellWriter], before: Counts, bar: Bar, stop: Stop
) -> Counts:
    """Every job of a task.

    Returns:
        What was done before and now.
    """
    run, reader = prepared.run, prepared.run.reader
    evaluator = _evaluator(run, model, bar.tell)
    counts = Counts()
    reset_peak(model.device)

    def now() -> dict[str, Any]:
        return {
            "prefills": evaluator.prefills,
            "prefilled_tokens": evaluator.prefilled_tokens,
            "rows": evaluator.decoded,
            "generated_tokens": counts.generated_tokens,
            "records": counts.records,
            "peak_bytes": held_at_most(model.device),
            "peak_of": "cuda" if model.device.type == "cuda" else "process",
        }

    def more() -> bool:
        heard = tensor_parallel.most(stop.heard)
        stop.learn(heard)
        return heard == 0  # what all have agreed on: another signal may have come since

    known = {
        "cells": [cell.name for cell in prepared.manifests],
        "examples": len(prepared.prompts),
        "prompts": len(prepared.jobs),
        "records_before": sum(count_lines(run.folder(cell), prepared.worker) for cell in prepared.manifests),
        "device": reader.provenance["device"],
        "width": evaluator.width,
        "kernels": evaluator.kernels,
    }
    with logged(prepared.folder, prepared.worker, now, **known), stop.finishing():
        for prompts in evaluator.run(prepared.jobs, more):
            for cell, records in _by_cell(prompts).items():
                writers[cell].append(records)
                prepared.records[cell].update({record.example_id: record for record in records})
                counts.records += len(records)
                counts.generated_tokens += sum(len(record.tokens) for record in records if record.alias_of is None)
            bar.advance(len(prompts))
        more()
    return Counts(
        before.prefills + evaluator.prefills,
        before.prompt_tokens + evaluator.prompt_tokens,
        before.prefilled_tokens + evaluator.prefilled_tokens,
        before.decoded_rows + evaluator.decoded,
        before.generated_tokens + counts.generated_tokens,
        before.records + counts.records,
    )


def _by_cell(prompts: Sequence[Mapping[Cell, Record]]) -> dict[Cell, list[Record]]:
    found: dict[Cell, list[Record]] = {}
    for records in prompts:
        for cell, record in records.items():
            found.setdefault(cell, []).append(record)
    return found


def _load(run: Run) -> PreTrainedModel:
    spec = run.reader.spec
    return load_model(spec, run.reader.config, run.engine.kernels_on(choose_device(spec.device)))


def _evaluator(run: Run, model: PreTrainedModel, tell: Callable[[str], None]) -> Evaluator:
    order, reader = [variant.cell for variant in run.variants], run.reader
    return Evaluator(model, run.model, reader.tokenizer, reader.end_ids, run.task, order, run.selection, run.engine, tell)
