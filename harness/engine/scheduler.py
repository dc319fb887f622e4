"""The scheduler: when prompts are prefilled, how many rows decode together, and what happens when memory runs out."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from harness.compression.grid import Plan, Variant
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.audit import audit
from harness.engine.engine import Engine
from harness.engine.failures import SelectionFailed, decoding_failure, failure, is_of_the_prompt, prefill_at
from harness.engine.memory import (
    PrefillMemoryError,
    free_bytes,
    is_out_of_memory,
    prompt_row_bytes,
    reason_of,
    release,
    rows_that_fit,
)
from harness.engine.model_spec import shape_of
from harness.engine.positions import beyond_positions
from harness.engine.prefix import Prefiller
from harness.engine.request import Outcome, Request, Unfinished
from harness.engine.rows import Generated, Limits
from harness.engine.running import Part, Running, RunningPart
from harness.engine.sampling import GREEDY, Sampling
from harness.engine.settings import EngineSettings
from harness.engine.shared_rows import SharedRow, shared_rows
from harness.engine.time_limit import TimeLimit, check_time_limit, time_limit, too_long
from harness.engine.watch import Watch
from harness.errors import ConfigError, EngineError, KvgaugeError
from harness.results import Cell

Finished = tuple[Request, dict[Cell, Outcome]]


class Scheduler:
    """Runs requests through an engine.

    Each prompt is prefilled once for all its variants, equal sets of kept entries are decoded once, and rows of several
    prompts decode together.

    Attributes:
        prefiller: prefills the prompts and counts their tokens.
        decoded: number of rows decoded so far.
        asked: number of tokens of questions that ran through compressed caches so far.
        width: largest number of rows that decode together; with ``engine.width=auto``, 0 until the first requests.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits,
        order: Sequence[Cell],
        selection: Selection,
        settings: EngineSettings,
        tell: Callable[[str], None],
        watch: Watch | None = None,
        sampling: Sampling = GREEDY,
        save: Callable[[Sequence[Unfinished]], None] | None = None,
    ) -> None:
        """Take what all requests share.

        Args:
            engine: the engine that computes.
            limits: when a row ends.
            order: all cells of the grid; among cells that kept the same entries, the first one is decoded.
            selection: how entries are selected.
            settings: how rows are computed.
            tell: called with a line of text when the width is chosen, or memory makes the width or the chunks smaller.
            watch: told of every prefill and every decoding step; None if nobody watches.
            sampling: how the answers of variants that draw them are drawn.
            save: called every ``engine.save_tokens`` steps with what long rows have generated; None to save nothing.

        Raises:
            ConfigError: there is a time limit, but this system or thread has no alarm.
        """
        if settings.time_limit_seconds is not None:
            check_time_limit()
        self.prefiller = Prefiller(engine, selection, settings.chunk_tokens)
        self.decoded = self.asked = 0
        self.width = 1 if settings.exact else settings.width if settings.width != "auto" else 0
        self._free = tensor_parallel.least(free_bytes(engine.device)) if settings.width == "auto" else 0
        self._engine = engine
        self._limits = limits
        self._order = {cell: index for index, cell in enumerate(order)}
        self._selection = selection
        self._settings = settings
        self._tell = tell
        self._watch = watch or Watch()
        self._sampling = sampling
        self._save = save
        self._steps = 0
        self._most_unsaved = settings.unsaved_tokens_on(engine.device)
        self._unsaved: dict[int, int] = {}  # tokens of prompts that have started and are not written, by their index

    def run(self, requests: Sequence[Request], more: Callable[[], bool]) -> Iterator[list[Finished]]:
        """The missing outcomes of each prompt, in the order of the requests.

        A prompt is yielded when its rows and those of earlier prompts have ended. Prompts start in their order, at
        least one at a time, while no more than ``width`` rows decode and no more than ``unsaved_tokens`` are of prompts
        not yet yielded; the next ones start when at most half of the width still decodes. The schedule thus depends on
        the requests, these limits and the generated tokens alone.

        When memory runs out, what has started and not finished is done again with half the width; of one prompt, by
        halves of its variants or, if the prefill failed, of its chunks. What is kept and generated stays the same.

        Args:
            requests: what to compute.
            more: asked before a prompt starts. After it returns False, no new prompt starts; running ones finish.

        Yields:
            Prompts that are finished, 1 or more at a time.

        Raises:
            EngineError: one variant of one prompt does not fit into memory; or one of several processes ran out of
                it. The outcomes of later prompts that are finished are yielded first.
        """
        finished: dict[int, dict[Cell, Outcome]] = {}
        self._unsaved = {}
        turn = 0
        try:
            for just_finished in self._finishing(requests, more):
                finished |= just_finished
                ready = []
                while turn in finished:
                    ready.append((requests[turn], finished.pop(turn)))
                    turn += 1
                if ready:
                    yield ready
                    for index in range(turn - len(ready), turn):  # they are written now
                        del self._unsaved[index]
        except KvgaugeError:
            if finished:
                yield [(requests[index], finished[index]) for index in sorted(finished)]
            raise

    def _finishing(
        self, requests: Sequence[Request], more: Callable[[], bool]
    ) -> Iterator[dict[int, dict[Cell, Outcome]]]:
        """Outcomes of each prompt by its index, as soon as all its rows have ended."""
        if requests and not self.width:
            self.width = self._width_that_fits(requests)
        queue, running = deque(itertools.starmap(Part, enumerate(requests))), self._running()
        while queue or running.parts:
            try:
                if not self._take(queue, running, more):
                    self._advance(running)
                done = self._finish(queue, running)
            except Exception as error:
                failed = decoding_failure(error)
                reason, prefilling = reason_of(error), isinstance(error, PrefillMemoryError)
            else:
                if done:
                    yield done
                continue
            # Outside the handler, where the tensors of the failed attempt are freed.
            parts: Sequence[Part] = [taken.part for taken in running.parts]
            done = {}
            if failed is None:
                parts = self._smaller(parts, reason, prefilling)
            elif len(parts) > 1:
                parts = [replace(part, alone=True) for part in parts]
            else:
                running.give_up(failed)
                parts, done = [], self._finish(queue, running)
            running = self._running()
            self.prefiller.forget()
            release()
            queue.extendleft(reversed(parts))
            if done:
                yield done

    def _running(self) -> Running:
        return Running(self._engine.decoding(self._limits), self._limits.stop_ids)

    def _take(self, queue: deque[Part], running: Running, more: Callable[[], bool]) -> bool:
        """Start and prefill the prompts that there is room for; False if none started."""
        if running.rows > self.width // 2:
            return False
        while queue and running.has_room(queue[0], self.width) and self._may_start(queue[0]):
            if not (queue[0].begun or more()):
                queue.clear()  # parts of requests that have started come first in the queue
                break
            self._unsaved[queue[0].index] = len(queue[0].request.turns[-1].ids)
            running.take(queue.popleft())
        taken = [part for part in running.parts if part.rows is None]
        for part in taken:
            begun = time.monotonic()
            part.rows = self._prefill(part)
            running.enqueue(part.rows)
            rows = sum(not row.known for row in part.rows)
            self._watch.prefilled(part.part.request, rows, time.monotonic() - begun)
        return bool(taken)

    def _may_start(self, part: Part) -> bool:
        """Whether a kill would cost no more than it may if a part started; one that has begun goes on in any case."""
        tokens = len(part.request.turns[-1].ids)
        return part.begun or not self._unsaved or sum(self._unsaved.values()) + tokens <= self._most_unsaved

    def _advance(self, running: Running) -> None:
        begun, before, asked = time.monotonic(), running.generated, running.asked
        ended = running.advance(self.width)
        self.asked += running.asked - asked
        lengths = [len(generated.tokens) for _, generated in ended]
        self._watch.decoded(running.generated - before, lengths, time.monotonic() - begun)
        self._steps += 1
        every = self._settings.save_tokens
        if self._save is not None and every is not None and self._steps % every == 0:
            self._save(running.unfinished(every))
        for shared, generated in ended:
            if shared.alone is not None:
                row, shared.alone = shared.alone, None
                shared.audit = audit(self._engine, row, generated, self._limits)

    def _finish(self, queue: deque[Part], running: Running) -> dict[int, dict[Cell, Outcome]]:
        """Outcomes of the prompts that are finished; of a request with further parts, the next one is queued."""
        done, finished = {}, running.finished()
        running.remove(finished)
        for taken in finished:
            outcomes = taken.outcomes()
            self.decoded += taken.decoded
            if taken.part.later:
                queue.appendleft(taken.part.rest(outcomes))
            else:
                done[taken.part.index] = {**taken.part.outcomes, **outcomes}
        return done

    def _prefill(self, running: RunningPart) -> list[SharedRow]:
        """Prefill a part and return its rows; variants without one are added to its failures."""
        request, plans = running.part.request, dict[Variant, Plan]()
        whole, tokens = len(request.turns[-1].ids), request.prompt.context_tokens
        new_tokens = self._limits.max_new_tokens * len(request.turns)
        beyond = beyond_positions(self._engine.model.config, whole, new_tokens, whole - tokens)
        if beyond is not None:
            running.failed = {variant.cell: Outcome(Generated((), beyond)) for variant in request.missing}
            return []
        for variant in request.missing:
            try:
                plans[variant] = variant.plan(shape_of(self._engine.model.config, tokens, self._selection))
            except ConfigError as error:
                running.failed[variant.cell] = Outcome(Generated((), str(error)))
        limit = self._settings.time_limit_seconds
        while plans:
            try:
                with time_limit(limit):
                    return self._rows(running.part, plans)
            except TimeLimit as expired:
                at, why = expired.at, too_long(prefill_at(expired.at), limit)
            except SelectionFailed as error:
                at, why = error.at, failure(prefill_at(error.at), error.__cause__ or error)
            except Exception as error:
                if not is_of_the_prompt(error):
                    raise
                at, why = None, failure(prefill_at(None), error)
            self.prefiller.forget()
            for variant in [
                variant for variant, plan in plans.items() if at in (None, plan.scorer, plan.waiting, plan.storage)
            ]:
                running.failed[variant.cell] = Outcome(Generated((), why))
                del plans[variant]
        return []

    def _rows(self, part: Part, plans: Mapping[Variant, Plan]) -> list[SharedRow]:
        request = part.request
        # Where memory suffices for a part of the variants alone, nothing is held.
        shared = request.shared and not (part.later or part.outcomes)
        try:
            ids = request.prompt.context.tolist()
            prefilled = self.prefiller.prefill(ids, list(plans.values()), request.hold, shared)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise PrefillMemoryError(reason_of(error)) from error
            raise
        share, stop_ids = self._settings.audit, self._limits.stop_ids
        return shared_rows(request, plans, prefilled, self._order, share, self._sampling, stop_ids)

    def _width_that_fits(self, requests: Sequence[Request]) -> int:
        """Number of rows that fit into the free memory if all prompts are as long as the longest."""
        longest = max(requests, key=lambda request: len(request.turns[-1].ids))
        model, new_tokens = self._engine.model, self._limits.max_new_tokens
        bytes_per_row = prompt_row_bytes(model.config, model.dtype, longest, new_tokens, self._selection)
        width = rows_that_fit(self._free, bytes_per_row)
        self._tell(
            f"engine.width=auto: {width} rows decode together at most, of {bytes_per_row / 1e6:,.1f} MB "
            f"for a prompt of {len(longest.turns[-1].ids)} tokens"
        )
        return width

    def _smaller(self, parts: Sequence[Part], reason: str, prefilling: bool) -> Sequence[Part]:
        """Make parts that did not fit into memory together smaller, by the chunks, the width or their variants.

        Args:
            parts: parts that had started, 1 or more.
            reason: the first line of the error.
            prefilling: whether memory ran out during a prefill.

        Returns:
            The parts to queue again.

        Raises:
            EngineError: nothing can be made smaller.
        """
        request, tokens = parts[0].request, len(parts[0].request.turns[-1].ids)
        context = request.prompt.context_tokens
        if len(parts) == 1 and prefilling and (chunk := self.prefiller.shorten(context)) is not None:
            self._tell(
                f"out of memory: going on with engine.prefill_chunk={chunk}; budgets and prompts stay as they are"
            )
            return parts
        if len(parts) == 1 and len(request.missing) == 1 and (self.width == 1 or request.rows == 1):
            raise EngineError(
                f"one prompt of {tokens} tokens does not fit into memory with {request.missing[0].cell.name} alone "
                f"({reason}): use a smaller model.dtype, model.device_map=auto or shorter prompts"
            )
        if self.width > 1:
            self.width = max(1, min(self.width, sum(part.request.rows for part in parts)) // 2)
            self._tell(f"out of memory: going on with engine.width={self.width}; budgets and prompts stay as they are")
        return parts if len(parts) > 1 or len(request.missing) == 1 else [parts[0].halved()]
