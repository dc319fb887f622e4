"""The execution of runs: missing records are computed and written, and complete cells get their scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from msgspec import structs
from rich.console import Console

from harness.engine import tensor_parallel
from harness.engine.engine import Engine
from harness.engine.memory import held_at_most, reset_peak
from harness.engine.request import contexts, prompts_of
from harness.report.stats.summary import cell_summary
from harness.results import Cell, CellResult, Record, TaskResult
from harness.run.evaluate import evaluate, make_scheduler
from harness.run.meter import Meter
from harness.run.prepare import Prepared, Run, refreshed
from harness.run.progress import Bar
from harness.run.prompts import prompt_saver
from harness.run.requests import saver
from harness.run.signals import Relay, Stop
from harness.store.cells import CellWriter, count_lines, is_whole
from harness.store.places import cells_of_task
from harness.store.run_log import logged
from harness.task import published_examples

Written = Callable[[Prepared, Sequence[Mapping[Cell, Record]], Meter], None]


@dataclass
class Counts:
    """How much work runs took.

    Attributes:
        prefills: number of prompts or contexts prefilled.
        prompt_tokens: tokens of all prompts, or of the contexts of all questions.
        prefilled_tokens: those that went through the model; fewer than ``prompt_tokens`` if some were shared.
        question_tokens: tokens of questions that ran through compressed caches, of all rows together.
        decoded_rows: number of rows decoded.
        generated_tokens: tokens generated in these rows.
        records: number of records written.
    """

    prefills: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    question_tokens: int = 0
    decoded_rows: int = 0
    generated_tokens: int = 0
    records: int = 0


def execute(
    tasks: Sequence[Prepared],
    console: Console,
    stop: Stop,
    engine: Engine | None = None,
    written: Written = lambda *_: None,
) -> tuple[list[Prepared], Counts]:
    """Compute and write missing records prompt by prompt, then write the scores of every complete cell.

    Args:
        tasks: runs of one model, with a results folder.
        console: where progress is printed.
        stop: tells whether a signal came.
        engine: the model, if it is already loaded; otherwise it is loaded if a record is missing.
        written: called with a task, its new records and the progress of the run, whenever records are written.

    Returns:
        The runs as they are now, and the work they took.

    Raises:
        KvgaugeError: the runs cannot be finished; records written before are kept.
    """
    for prepared in tasks:
        with _writers(prepared):
            pass  # so that a folder that cannot be written is an error before the model is loaded
    counts, finished = Counts(), []
    missing = sum(len(prepared.requests) for prepared in tasks)
    if missing and engine is None:
        tensor_parallel.say(("load",))
        engine = load(tasks[0].run)
    with _bar(tasks, console) as bar:
        for index, prepared in enumerate(tasks):
            with _writers(prepared) as writers:
                current = refreshed(prepared)  # with records that others wrote before this process got the locks
                bar.begin(index, current.requests)
                bar.advance(len(prompts_of(prepared.requests)) - len(prompts_of(current.requests)))
                save = prompt_saver(current)
                save({name for by_id in current.records.values() for name in by_id})  # those of before
                if engine is not None and current.requests:
                    tensor_parallel.say(("task", index, current.requests))
                    counts = _compute(current, engine, writers, counts, bar, stop, written, save)
                if current.run.shard.count > 1:
                    current = refreshed(current)  # with the records of the other shards
                _finish(current, writers)
                finished.append(current)
    return finished, counts


def execute_in_memory(tasks: Sequence[Prepared], console: Console, engine: Engine | None = None) -> None:
    """Compute all records and keep them in ``Prepared.records``; nothing is written.

    Args:
        tasks: runs of one model, without a results folder.
        console: where progress is printed.
        engine: the model, if it is already loaded.

    Raises:
        KvgaugeError: the runs cannot be finished.
    """
    engine = engine or load(tasks[0].run)
    with _bar(tasks, console) as bar:
        for index, prepared in enumerate(tasks):
            bar.begin(index, prepared.requests)
            scheduler = make_scheduler(prepared.run, engine, bar.tell, bar)
            for prompts in evaluate(prepared.run, scheduler, prepared.requests, lambda: True):
                for cell, records in _by_cell(prompts).items():
                    prepared.records[cell].update({record.example_id: record for record in records})
                bar.advance(len(prompts))


def follow(runs: Sequence[Run], relay: Relay) -> None:
    """The counterpart of ``execute`` in the other processes of a tensor-parallel run.

    Such a process computes its share of the heads as the first process directs, and writes nothing.

    Args:
        runs: runs of one model, in the same order as in the first process.
        relay: collects signals, which the first process learns of before each prompt and at the end.

    Raises:
        KvgaugeError: the runs cannot be finished in the first process, or this one ran out of memory.
    """

    def more() -> bool:
        return tensor_parallel.most(relay.heard[0] if relay.heard else 0) == 0

    while (order := tensor_parallel.hear()) is not None:
        match order:
            case ("load",):
                engine = load(runs[0])
            case ("task", index, requests):
                for _ in make_scheduler(runs[index], engine, lambda _: None).run(requests, more):
                    pass
                more()


def result(prepared: Prepared) -> TaskResult:
    """The task's grid with the records that exist so far."""
    run = prepared.run
    names = [prompt.example.id for prompt in prepared.prompts]
    return TaskResult(
        model=run.model,
        task=run.task.name,
        metrics=run.metrics,
        heatmap_axes=run.task.heatmap_axes,
        note=next(iter(prepared.manifests.values())).note,
        cells=tuple(
            CellResult(cell, len(names), tuple(records[name] for name in names if name in records))
            for cell, records in prepared.records.items()
        ),
        breakdown=run.task.breakdown,
        published=published_examples(run.task),
        knobs=tuple(run.task_config),
        after=run.selection.after,
    )


def has_more(prepared: Prepared) -> bool:
    """Whether the folder of the task holds cells or examples that this run did not ask for."""
    return any(prepared.others.values()) or any(
        manifest.cell not in prepared.manifests and is_whole(folder)
        for folder, manifest in cells_of_task(prepared.folder).items()
    )


def load(run: Run) -> Engine:
    """Load the model of a run.

    Raises:
        ModelError: it cannot be loaded, or cannot be evaluated exactly.
    """
    spec, config = run.checkpoint.spec, run.checkpoint.config
    return Engine.load(spec, config=config, kernels=run.engine_settings.kernels)


@contextmanager
def _writers(prepared: Prepared) -> Iterator[Mapping[Cell, CellWriter]]:
    worker = prepared.worker
    with ExitStack() as stack:
        yield {
            cell: stack.enter_context(closing(CellWriter(prepared.run.folder(cell), manifest, worker)))
            for cell, manifest in prepared.manifests.items()
        }


def _finish(prepared: Prepared, writers: Mapping[Cell, CellWriter]) -> None:
    """Write the scores of the complete cells, which are all cells unless other shards are still at work."""
    shared = prepared.run.shard.count > 1
    for known in result(prepared).cells:
        if len(known.records) == known.expected:
            records = (*known.records, *prepared.others[known.cell])
            everything = CellResult(known.cell, len(records), records)
            scores = cell_summary(everything, prepared.run.metrics)
            writers[known.cell].finish(scores, prepared.stamps[known.cell] if shared else None)


def _compute(
    prepared: Prepared,
    engine: Engine,
    writers: Mapping[Cell, CellWriter],
    before: Counts,
    bar: Bar,
    stop: Stop,
    written: Written,
    save: Callable[[Collection[str]], None],
) -> Counts:
    """Compute every request of a task.

    Returns:
        ``before`` plus the work done here.
    """
    run = prepared.run
    save_rows = saver(prepared)
    scheduler = make_scheduler(run, engine, bar.tell, bar, save_rows)
    counts, earlier = Counts(), bar.costs
    reset_peak(engine.device)

    def now() -> dict[str, Any]:
        return {
            "prefills": scheduler.prefiller.prompts,
            "prefilled_tokens": scheduler.prefiller.prefilled_tokens,
            "question_tokens": scheduler.asked,
            "rows": scheduler.decoded,
            "generated_tokens": counts.generated_tokens,
            "records": counts.records,
            "peak_bytes": held_at_most(engine.device),
            "peak_of": "cuda" if engine.device.type == "cuda" else "process",
            "costs": structs.asdict(bar.costs.since(earlier)),
        }

    def more() -> bool:
        heard = tensor_parallel.most(stop.heard)
        stop.learn(heard)
        return heard == 0  # what all processes agreed on; stop.heard may already be another signal

    missing = prompts_of(prepared.requests)
    known = {
        "cells": [cell.name for cell in prepared.manifests],
        "prompts": len(missing),
        "contexts": len(contexts(missing)) if run.selection.after == "context" else 0,
        "records_before": sum(count_lines(run.folder(cell), prepared.worker) for cell in prepared.manifests),
        "device": run.checkpoint.provenance["device"],
        "width": scheduler.width,
        "kernels": engine.kernels,
    }
    asked = [prompt.example.id for prompt in prepared.prompts]
    with logged(prepared.folder, prepared.worker, asked, now, **known), stop.finishing():
        for prompts in evaluate(run, scheduler, prepared.requests, more):
            for cell, records in _by_cell(prompts).items():
                writers[cell].append(records)
                prepared.records[cell].update({record.example_id: record for record in records})
                counts.records += len(records)
                counts.generated_tokens += sum(record.generated_tokens for record in records if record.alias_of is None)
            save({record.example_id for records in prompts for record in records.values()})
            bar.advance(len(prompts))
            written(prepared, prompts, bar)
        save_rows(())
        more()
    return Counts(
        before.prefills + scheduler.prefiller.prompts,
        before.prompt_tokens + scheduler.prefiller.prompt_tokens,
        before.prefilled_tokens + scheduler.prefiller.prefilled_tokens,
        before.question_tokens + scheduler.asked,
        before.decoded_rows + scheduler.decoded,
        before.generated_tokens + counts.generated_tokens,
        before.records + counts.records,
    )


def _bar(tasks: Sequence[Prepared], console: Console) -> Bar:
    """The progress of tasks."""
    bar = Bar(console)
    for prepared in tasks:
        bar.expect(prepared.requests, prepared.run.task.max_new_tokens)
    return bar


def _by_cell(prompts: Sequence[Mapping[Cell, Record]]) -> dict[Cell, list[Record]]:
    by_cell: dict[Cell, list[Record]] = {}
    for records in prompts:
        for cell, record in records.items():
            by_cell.setdefault(cell, []).append(record)
    return by_cell
