"""What a tracker shows of a run while it goes on: numbers after each written batch, from a thread beside the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

from rich.console import Console

from harness.engine.request import prompts_of
from harness.printing import say
from harness.report.stats.means import mean
from harness.report.tracker import LiveRun, Tracked, Tracker, reason
from harness.results import Cell, Record
from harness.run.meter import Meter
from harness.run.prepare import Prepared
from harness.task import Suite

_PATIENCE_SECONDS = 5.0
"""How long a run that failed or was stopped waits for a tracker to take what it was told."""


def tracked(tasks: Sequence[Prepared], suite: Suite | None) -> Tracked:
    """What a tracker knows a run by."""
    manifests = {prepared.run.task.name: prepared.manifests for prepared in tasks}
    return Tracked(tasks[0].run.model, suite.name if suite else next(iter(manifests)), manifests)


class Live:
    """A context manager that tells a tracker how far a run is, as long as records are computed in it.

    The tracker works in a thread of its own, so that a slow network slows nothing down. If it fails, that is one line,
    and the run goes on without it. Of several shards only the first is shown.
    """

    def __init__(self, tasks: Sequence[Prepared], suite: Suite | None, tracker: Tracker, console: Console) -> None:
        """Prepare the thread, which starts on entering the context.

        Args:
            tasks: the tasks of a run, before anything is computed.
            suite: the suite that they belong to, if any.
            tracker: where to show them.
            console: where to print that it failed.
        """
        self._about, self._tracker, self._console = tracked(tasks, suite), tracker, console
        self._wanted = tasks[0].run.shard.index == 0 and any(prepared.requests for prepared in tasks)
        self._prompts = sum(len(prepared.own) for prepared in tasks)
        self._done = self._prompts - sum(len(prompts_of(prepared.requests)) for prepared in tasks)
        self._errors = 0
        self._scores: dict[tuple[Cell, str], tuple[float, int]] = {}
        """By cell and task, the sum of the headline and the number of records in it."""
        for prepared in tasks:
            for cell, records in prepared.records.items():
                retried = prepared.run.retry_errors
                known = [record for record in records.values() if not (retried and record.error is not None)]
                self._add(prepared, [{cell: record} for record in known])
        self._queue: SimpleQueue[dict[str, float] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="tracker", daemon=True)
        self._run: LiveRun | None = None

    def __enter__(self) -> Self:
        if self._wanted:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(_PATIENCE_SECONDS)  # a run that was stopped does not wait for a network
            if self._thread.is_alive():
                return
        run = self.hand_over()
        if run is not None:
            with suppress(Exception):
                run.finish(exit_code=0 if error is None else 1)

    def written(self, prepared: Prepared, prompts: Sequence[Mapping[Cell, Record]], meter: Meter) -> None:
        """Show how far the run is.

        Args:
            prepared: the task that goes on.
            prompts: the records that were written, one mapping per prompt.
            meter: what of the run is done.
        """
        self._done += len(prompts)
        self._add(prepared, prompts)
        left = meter.seconds_left
        by_cell: dict[Cell, list[float]] = {}
        for (cell, _), (total, count) in self._scores.items():
            by_cell.setdefault(cell, []).append(total / count)
        self._queue.put(
            {
                "progress/prompts": self._done,
                "progress/percent": 100 * self._done / self._prompts,
                "progress/prefilled_tokens": meter.prompt_tokens,
                "progress/generated_tokens": meter.generated,
                "progress/errors": self._errors,
                **({} if left is None else {"progress/minutes_left": left / 60}),
                "rate/prefilled_tokens_per_second": meter.prefill_rate,
                "rate/generated_tokens_per_second": meter.decode_rate,
                **{f"running/{cell.name}": mean(means) for cell, means in by_cell.items()},
            }
        )

    def hand_over(self) -> LiveRun | None:
        """Show the last numbers, and give away the tracker's run for whoever finishes it; None if there is none."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        run, self._run = self._run, None
        return run

    def _work(self) -> None:
        run = None
        try:
            run = self._tracker.begin(self._about)
            while (values := self._queue.get()) is not None:
                if run is not None:
                    run.log(values)
            self._run = run
        except Exception as error:  # whatever a tracker raises
            said = f"the tracker shows nothing of this run until its end ({type(error).__name__}: {reason(error)})"
            say(self._console, said)
            if run is not None:
                with suppress(Exception):
                    run.finish(exit_code=1)

    def _add(self, prepared: Prepared, prompts: Sequence[Mapping[Cell, Record]]) -> None:
        metrics = prepared.run.task.metrics
        for records in prompts:
            for cell, record in records.items():
                self._errors += record.error is not None
                score = record.scores.get(metrics[0].name) if metrics and record.error is None else None
                if score is not None:
                    total, count = self._scores.get((cell, prepared.run.task.name), (0.0, 0))
                    shown = 100 * score / metrics[0].maximum
                    self._scores[cell, prepared.run.task.name] = (total + shown, count + 1)
