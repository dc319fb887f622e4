"""The measure of a run: what is prefilled and decoded, and an estimate of the time that the rest takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from harness.engine.request import Request, prompts_of
from harness.engine.watch import Watch
from harness.store.costs import Costs


@dataclass
class _Work:
    """One task.

    Attributes:
        prompt_tokens: tokens yet to prefill.
        variants: variants of prompts that are yet to prefill; several may share a row.
        most: the most tokens that a row generates.
        generated: tokens generated so far.
        ended_tokens: tokens of the rows that have ended.
        ended: number of rows that have ended.
        going: number of rows that have started and not ended.
    """

    prompt_tokens: int
    variants: int
    most: int
    generated: int = 0
    ended_tokens: int = 0
    ended: int = 0
    going: int = 0

    @property
    def length(self) -> float:
        """Mean number of tokens of a row, estimated from those that have ended and those that are going on."""
        return min(float(self.most), self.generated / self.ended) if self.ended else float(self.most)


class Meter(Watch):
    """Measures the work of a run, and estimates the time that its rest takes.

    A prompt token costs what one has cost so far. A decoding step costs a part for itself and a part for each of its
    rows, fitted to the steps so far. What is neither, such as scoring and writing, costs the same for every prompt.
    Rows of a task that has not begun are as long as those of the others, in relation to the most tokens that they may
    have.

    Attributes:
        prompt_tokens: tokens prefilled so far.
        generated: tokens generated so far.
        total_tokens: tokens of all prompts.
        prompts: number of all prompts.
        written: number of prompts that are written.
        costs: what the work cost so far.
    """

    def __init__(self) -> None:
        """Start without work."""
        self.prompt_tokens = self.generated = self.total_tokens = 0
        self.prompts = self.written = 0
        self._started = time.monotonic()
        self._work: list[_Work] = []
        self._now = 0
        self.costs = Costs()
        self._other_before: float | None = None  # when the last prompts were written

    def expect(self, requests: Sequence[Request], max_new_tokens: int) -> None:
        """Take in a further task of the run, of which nothing is done.

        Args:
            requests: what is to compute.
            max_new_tokens: the most tokens that a row generates.
        """
        self._work.append(_Work(0, 0, max_new_tokens))
        self.prompts += len(prompts_of(requests))
        self.begin(len(self._work) - 1, requests)

    def begin(self, task: int, requests: Sequence[Request]) -> None:
        """Begin a task.

        Args:
            task: its place among those that were expected.
            requests: what is to compute now; others may have done a part meanwhile.
        """
        self._now, work = task, self._work[task]
        tokens = sum(len(request.turns[-1].ids) for request in requests)
        self.total_tokens += tokens - work.prompt_tokens
        work.prompt_tokens = tokens
        work.variants = sum(request.rows * len(request.turns) for request in requests)

    def advance(self, count: int) -> None:
        """Note that ``count`` more prompts are written, now or by others."""
        self.written += count
        if count:
            if self._other_before is not None:
                self.costs += Costs(other_seconds=max(0.0, self._other_seconds - self._other_before), others=count)
            self._other_before = self._other_seconds

    def prefilled(self, request: Request, rows: int, seconds: float) -> None:
        """A prompt was prefilled; see ``Watch``."""
        work, tokens = self._work[self._now], len(request.turns[-1].ids)
        self.prompt_tokens += tokens
        work.prompt_tokens = max(0, work.prompt_tokens - tokens)
        work.variants = max(0, work.variants - request.rows * len(request.turns))
        work.going += rows * len(request.turns)
        self.costs += Costs(1, tokens, seconds, request.rows, rows)

    def decoded(self, tokens: int, ended: Sequence[int], seconds: float) -> None:
        """Rows went on by a token; see ``Watch``."""
        work = self._work[self._now]
        self.generated += tokens
        work.generated += tokens
        work.ended_tokens += sum(ended)
        work.ended += len(ended)
        work.going = max(0, work.going - len(ended))
        self.costs += Costs(
            steps=1,
            tokens=tokens,
            squares=tokens * tokens,
            decode_seconds=seconds,
            products=tokens * seconds,
            allowed=work.most * len(ended),
        )

    @property
    def prefill_rate(self) -> float:
        """Tokens prefilled per second of prefilling; 0 before the first."""
        return self.prompt_tokens / seconds if (seconds := self.costs.prefill_seconds) else 0.0

    @property
    def decode_rate(self) -> float:
        """Tokens generated per second of decoding, in all rows together; 0 before the first."""
        return self.generated / seconds if (seconds := self.costs.decode_seconds) else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest takes; None as long as nothing was decoded."""
        if not self.costs.tokens:
            return None
        now, costs = self._work[self._now], self.costs
        of_step, of_token = costs.of_step
        # Tokens of the rows that are going on, and steps until the last of them has ended.
        tokens = steps = 0.0
        if now.going:
            rest = now.most - (now.generated - now.ended_tokens) / now.going
            tokens = now.going * max(1.0, min(now.length, rest))
            steps = costs.longest(now.length, now.going, rest)
        later = later_steps = 0.0
        for work in self._work:
            length = work.length if work.ended else work.most * costs.share
            its_tokens = work.variants * costs.rows_of_variant * length
            later += its_tokens
            # As wide as the steps so far; but no row is decoded in fewer steps than it has tokens.
            later_steps += max(its_tokens * costs.steps / costs.tokens, length if work.variants else 0.0)
        return (
            costs.of_prompt_token * sum(work.prompt_tokens for work in self._work)
            + of_token * (tokens + later)
            + of_step * (steps + later_steps)
            + (self._other_seconds * (self.prompts - self.written) / self.written if self.written else 0.0)
        )

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def _other_seconds(self) -> float:
        """Seconds so far that were neither a prefill's nor a step's."""
        return max(0.0, self.seconds - self.costs.prefill_seconds - self.costs.decode_seconds)
