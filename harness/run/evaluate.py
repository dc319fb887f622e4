"""Records made from the engine's outcomes: texts, scores, and what was kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from msgspec import structs

from harness.engine.engine import Engine
from harness.engine.prompt import Prompt
from harness.engine.request import Outcome, Request, Unfinished
from harness.engine.rows import Limits
from harness.engine.scheduler import Scheduler
from harness.engine.time_limit import TimeLimit, time_limit, too_long
from harness.engine.watch import Watch
from harness.results import Cell, Record, Sample, layer_means
from harness.run.evicted import evicted
from harness.run.prepare import Run
from harness.run.texts import generated_text
from harness.store.scoring import with_scores


def make_scheduler(
    run: Run,
    engine: Engine,
    tell: Callable[[str], None],
    watch: Watch | None = None,
    save: Callable[[Sequence[Unfinished]], None] | None = None,
) -> Scheduler:
    """The scheduler that computes a run's requests.

    Args:
        run: what was asked for.
        engine: the run's model.
        tell: called with a line of text when a lack of memory reduces the width or the size of prefill pieces.
        watch: told of every prefill and every decoding step; None if nobody watches.
        save: called with what long rows have generated; see ``Scheduler``.

    Raises:
        ConfigError: the run has a time limit, and none can be kept here.
    """
    stop_ids = run.task.stop_ids(run.checkpoint.tokenizer, run.checkpoint.end_ids)
    seconds = run.engine_settings.row_time_limit_seconds
    limits = Limits(stop_ids, run.task.max_new_tokens, run.task.min_new_tokens, seconds)
    order = [variant.cell for variant in run.variants]
    return Scheduler(engine, limits, order, run.selection, run.engine_settings, tell, watch, run.sampling, save)


def evaluate(
    run: Run, scheduler: Scheduler, requests: Sequence[Request], more: Callable[[], bool]
) -> Iterator[list[dict[Cell, Record]]]:
    """Compute requests, and yield the records of finished prompts in the order of the requests.

    Each list holds one mapping per prompt, of its missing records by cell; see ``Scheduler.run``. Each turn of a
    conversation is a prompt, and all of them are in one list.

    Args:
        run: what was asked for.
        scheduler: from ``make_scheduler``.
        requests: what to compute.
        more: called before each prompt. After it returns False, no new prompt starts; running ones finish.

    Raises:
        EngineError: as ``Scheduler.run``.
    """
    for finished in scheduler.run(requests, more):
        yield [
            {
                cell: _record(run, prompt, outcome.of_turn(turn))
                for cell, outcome in outcomes.items()
                if turn >= request.recorded.get(cell, 0)
            }
            for request, outcomes in finished
            for turn, prompt in enumerate(request.turns)
        ]


def _record(run: Run, prompt: Prompt, outcome: Outcome) -> Record:
    example, kept = prompt.example, outcome.kept
    record = Record(
        example_id=example.id,
        group=example.group,
        references=example.references,
        details=example.details,
        prompt_tokens=len(prompt.ids),
        prompt_sha256=prompt.sha256,
        tokens_before_truncation=example.tokens_before_truncation,
        prompt_ends=prompt.ends,
        error=outcome.generated.error,
        partial=outcome.generated.partial,
        context_tokens=prompt.context_tokens if run.selection.after == "context" else None,
    )
    if kept is None:
        return record
    record = structs.replace(
        record,
        tokens=outcome.generated.tokens,
        kept=kept.entries,
        # Where all layers have windows, there is none to drop an entry from.
        retention=sum(layer_means(kept.entries)) / len(kept.entries) / prompt.context_tokens if kept.entries else 1.0,
        kept_bytes=kept.bytes,
        bits=kept.bits,
        retention_bytes=kept.bytes / outcome.full_bytes,
        kept_sha256=kept.sha256,
        tied_heads=kept.tied_heads,
        alias_of=None if outcome.alias_of is None else outcome.alias_of.name,
        audit=outcome.audit,
        samples=tuple(Sample(sample.tokens) for sample in outcome.samples),
    )
    lengths = [len(sample.tokens) for sample in record.samples] or [len(record.tokens)]
    held = evicted(kept, prompt.context_tokens, len(prompt.question), lengths)
    record = structs.replace(record, evicted=held)
    if record.error is not None and not record.partial:
        return record
    try:
        with time_limit(run.engine_settings.time_limit_seconds):
            samples = [structs.replace(sample, text=_text(run, sample.tokens)) for sample in record.samples]
            record = structs.replace(record, text=_text(run, record.tokens), samples=samples)
            return record if record.partial else with_scores(record, run.task, example)
    except TimeLimit:
        why = too_long("scoring the text", run.engine_settings.time_limit_seconds)
        return structs.replace(record, error=f"{why}; the text is kept, and kvgauge score has no such limit")


def _text(run: Run, tokens: Sequence[int]) -> str | None:
    """The decoded tokens, without special ones; None if the task needs no tokenizer."""
    if run.checkpoint.tokenizer is None:
        return None
    return generated_text(run.task, run.checkpoint.tokenizer, tokens)
