"""A calibration: a few prefills and steps of a run's own prompts, from which its cost is estimated; nothing is kept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import ceil

from harness.engine import tensor_parallel
from harness.engine.engine import Engine
from harness.engine.memory import held_at_most, reset_peak
from harness.engine.request import Request
from harness.errors import ConfigError, EngineError
from harness.run.cost import Basis, width_of
from harness.run.evaluate import evaluate, make_scheduler
from harness.run.execute import load
from harness.run.meter import Meter
from harness.run.prepare import Prepared
from harness.store.costs import Costs

_SECONDS = 4.0
_STEPS = 8
_GOLDEN = 0.618  # multiples of it, modulo 1, are spread evenly however many there are


class _Enough(BaseException):
    """Enough was measured. As the scheduler takes exceptions for faults of the prompt, it is none."""


class _Watch(Meter):
    """Ends the work when some seconds have gone by and some steps were taken."""

    def __init__(self, seconds: float, steps: int) -> None:
        super().__init__()
        self._enough = seconds, steps

    def decoded(self, tokens: int, ended: Sequence[int], seconds: float) -> None:
        """Rows went on by a token; see ``Watch``."""
        super().decoded(tokens, ended, seconds)
        if self.seconds >= self._enough[0] and self.costs.steps >= self._enough[1]:
            raise _Enough


def calibrate(tasks: Sequence[Prepared]) -> Basis:
    """Load the model and measure, for a few seconds, what its prefills and steps cost on this machine.

    Args:
        tasks: runs of one model, with something to compute; the one with most prompt tokens is measured.

    Raises:
        ConfigError: the run has several processes.
        ModelError, EngineError: the model cannot be loaded, or its prompts cannot be computed.
    """
    if tensor_parallel.count() > 1:
        raise ConfigError("dry_run=measure is for one process: leave model.tp_plan out, or use dry_run=true")
    prepared = max(tasks, key=lambda task: sum(len(request.prompt.ids) for request in task.requests))
    engine = load(prepared.run)
    reset_peak(engine.device)
    requests = _spread(prepared.requests)
    first = _measured(prepared, engine, requests[:1], _Watch(0.0, 2))  # libraries and kernels are made ready
    # As many as fill the width and are prefilled in time.
    fill = ceil(width_of([prepared]) / max(request.rows for request in requests))
    mean = sum(len(request.prompt.ids) for request in requests) / len(requests)
    in_time = int(_SECONDS / max(first.of_prompt_token * mean, 1e-9))
    costs = _measured(prepared, engine, requests[: max(2, min(fill, in_time))], _Watch(_SECONDS, _STEPS))
    if not costs.tokens:
        raise EngineError("the prompts of the calibration failed: a run with limit=2 has the reasons in its records")
    device = prepared.run.checkpoint.provenance["device"]
    return Basis(costs, f"a calibration with {costs.prompts} prompts", device, held_at_most(engine.device))


def _measured(prepared: Prepared, engine: Engine, requests: Sequence[Request], watch: _Watch) -> Costs:
    """What requests cost until ``watch`` has enough."""
    run = prepared.run
    scheduler = make_scheduler(run, engine, lambda _: None, watch)
    watch.expect(requests, run.task.max_new_tokens)
    with suppress(_Enough):
        for finished in evaluate(run, scheduler, requests, lambda: True):
            watch.advance(len(finished))
    return watch.costs


def _spread(requests: Sequence[Request]) -> list[Request]:
    """Requests in an order in which the first few, however many, have lengths like all; one in the middle is first."""
    by_length = sorted(requests, key=lambda request: len(request.prompt.ids))
    places = (int((0.5 + number * _GOLDEN) % 1 * len(by_length)) for number in range(4 * len(by_length)))
    return [by_length[place] for place in dict.fromkeys(places)]
