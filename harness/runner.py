"""A run: from what is missing to whole cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from rich.console import Console
from transformers import PreTrainedModel

from harness.aggregate import cell_summary
from harness.evaluate import Evaluator
from harness.prepare import Prepared
from harness.progress import Bar
from harness.schema import Cell, CellResult, TaskResult
from harness.store import CellWriter
from harness.task import published_examples


@dataclass
class Counts:
    """What runs had to do."""

    prefills: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    decoded_rows: int = 0
    records: int = 0


def execute(tasks: Sequence[Prepared], console: Console) -> Counts:
    """Compute what is missing and write it, batch by batch; and the scores of every task's cells when they are whole.

    Args:
        tasks: runs of one model.
        console: for progress.

    Raises:
        KvgaugeError: what was finished before is kept.
    """
    for prepared in tasks:
        with _writers(prepared):
            pass  # a folder that cannot be written is found before the model is loaded
    counts = Counts()
    reader = tasks[0].run.reader
    missing = sum(len(prepared.jobs) for prepared in tasks)
    model = reader.spec.load(reader.config) if missing else None
    with Bar(console, "prompts", missing) as bar:
        for prepared in tasks:
            with _writers(prepared) as writers:
                if model is not None and prepared.jobs:
                    _compute(prepared, model, writers, counts, bar)
                for of in result(prepared).cells:
                    records = (*of.records, *prepared.others[of.cell])
                    everything = CellResult(of.cell, of.expected + len(prepared.others[of.cell]), records)
                    writers[of.cell].finish(cell_summary(everything, prepared.run.task.metrics))
    return counts


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
    folder = prepared.run.folder(next(iter(prepared.manifests))).parent
    return any(prepared.others.values()) or {path.parent.name for path in folder.glob("*/scores.json")} > {
        cell.name for cell in prepared.manifests
    }


@contextmanager
def _writers(prepared: Prepared) -> Iterator[Mapping[Cell, CellWriter]]:
    with ExitStack() as stack:
        yield {
            cell: stack.enter_context(closing(CellWriter(prepared.run.folder(cell), manifest)))
            for cell, manifest in prepared.manifests.items()
        }


def _compute(prepared: Prepared, model: PreTrainedModel, writers: Mapping[Cell, CellWriter], counts: Counts, bar: Bar) -> None:
    run, reader = prepared.run, prepared.run.reader
    evaluator = Evaluator(
        model,
        run.model,
        reader.tokenizer,
        reader.end_ids,
        run.task,
        list(prepared.manifests),
        run.selection,
        run.engine,
        bar.tell,
    )
    jobs = prepared.jobs
    while jobs:
        batch = evaluator.batch(jobs)
        for cell, records in evaluator.records(batch).items():
            writers[cell].append(records)
            prepared.records[cell].update({record.example_id: record for record in records})
            counts.records += len(records)
        bar.advance(len(batch))
        jobs = jobs[len(batch) :]
    counts.prefills += evaluator.prefills
    counts.prompt_tokens += evaluator.prompt_tokens
    counts.prefilled_tokens += evaluator.prefilled_tokens
    counts.decoded_rows += evaluator.decoded
