"""Prompts to records: one prefill per prompt for all variants, equal kept sets decoded once, everything decoded wide."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from harness.compression.grid import Plan, Variant
from harness.compression.selection import Selection
from harness.engine import tensor_parallel
from harness.engine.audit import audit, is_audited
from harness.engine.decode import Decoding, Generated, Row
from harness.engine.memory import PrefillMemoryError, free_bytes, is_out_of_memory, reason_of, release, row_bytes, rows_that_fit
from harness.engine.prefill import Kept, Past, Prefilled, extend, prefill
from harness.engine.prefix import pauses
from harness.engine.prompt import Prompt
from harness.engine.scheduler import Flight, Flying, Group, Job, Part
from harness.engine.settings import EngineSettings
from harness.engine.time_limit import TimeLimit, check_time_limit, time_limit
from harness.errors import BudgetError, EngineError, KvgaugeError
from harness.results import Cell, Record
from harness.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Smaller pieces of a prompt save next to nothing.
_LEAST_CHUNK_TOKENS = 64


class Evaluator:
    """A loaded model that turns jobs into records."""

    def __init__(
        self,
        model: PreTrainedModel,
        name: str,
        tokenizer: PreTrainedTokenizerBase | None,
        end_ids: frozenset[int],
        task: Task,
        order: Sequence[Cell],
        selection: Selection,
        engine: EngineSettings,
        tell: Callable[[str], None],
    ) -> None:
        """Take what all jobs share.

        Args:
            model: with ``attention.install`` applied.
            name: the model's name, for errors.
            tokenizer: decodes the generated ids; None leaves texts out.
            end_ids: the model's own end tokens.
            task: scores the texts.
            order: all cells of the grid; among cells that kept the same entries the first one is decoded.
            selection: how entries are picked.
            engine: how rows are computed.
            tell: called with a line when memory makes the width or the pieces of a prompt smaller.

        Raises:
            ConfigError: a time limit where there can be none.
        """
        if engine.time_limit_seconds is not None:
            check_time_limit()
        self.prefills = 0
        self.prompt_tokens = 0
        self.prefilled_tokens = 0
        self.decoded = 0
        self.width = 1 if engine.exact else engine.width if engine.width != "auto" else 0  # 0: when jobs are there
        self._free = tensor_parallel.least(free_bytes(model.device)) if engine.width == "auto" else 0
        self._engine = engine
        self.kernels = engine.kernels_on(model.device)
        self._chunk = engine.chunk_tokens
        self._pasts: list[Past] = []
        self._model = model
        self._name = name
        self._tokenizer = tokenizer
        self._task = task
        self._limits = (task.stop_ids(tokenizer, end_ids), task.max_new_tokens, task.min_new_tokens)
        self._order = {cell: place for place, cell in enumerate(order)}
        self._selection = selection
        self._tell = tell

    def run(self, jobs: Sequence[Job], more: Callable[[], bool]) -> Iterator[list[dict[Cell, Record]]]:
        """The missing records of each prompt, in the order of the prompts, as soon as all its rows and those of earlier prompts have ended.

        Prompts are taken, in their order, as long as their rows and those that decode are at most ``width``, one prompt at least; and
        again when at most half of the width is still decoding. So what is computed when depends on the jobs, the width and the tokens.

        When memory runs out, all that was taken and is not finished is done again with half the width; where one prompt alone is too much,
        its variants in halves, or, for its prefill, in pieces, each half as long as before. What is kept and generated stays the same.

        Args:
            jobs: what to compute.
            more: is asked before a prompt is taken. Once it says False none is, and what was taken is computed to its end.

        Raises:
            EngineError: one variant of one prompt does not fit into memory; or, of several processes, one ran out of it. Before it is
                raised, what later prompts have is given out.
        """
        finished: dict[int, dict[Cell, Record]] = {}
        turn = 0
        try:
            for landed in self._landing(jobs, more):
                finished |= landed
                ready = []
                while turn in finished:
                    ready.append(finished.pop(turn))
                    turn += 1
                if ready:
                    yield ready
        except KvgaugeError:
            if finished:
                yield [finished[place] for place in sorted(finished)]
            raise

    def _landing(self, jobs: Sequence[Job], more: Callable[[], bool]) -> Iterator[dict[int, dict[Cell, Record]]]:
        """Records of each prompt, by its place, as soon as all its rows have ended."""
        if jobs and not self.width:
            self.width = self._fitting(jobs)
        queue, flight = deque(itertools.starmap(Part, enumerate(jobs))), self._flight()
        while queue or flight.flying:
            try:
                if not self._take(queue, flight, more):
                    self._advance(flight)
                done = self._land(queue, flight)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason, prefilling = reason_of(error), isinstance(error, PrefillMemoryError)
                if tensor_parallel.count() > 1:
                    raise EngineError(
                        f"{tensor_parallel.name()} ran out of memory ({reason}), and the others cannot go back to do what was begun in "
                        "parts: use a smaller engine.width or engine.prefill_chunk"
                    ) from error
            else:
                if done:
                    yield done
                continue
            # Outside the handler, so that the failed attempt's tensors are gone.
            parts = [flying.part for flying in flight.flying]
            flight = self._flight()
            self._pasts = []
            release()
            queue.extendleft(reversed(self._smaller(parts, reason, prefilling)))

    def _flight(self) -> Flight:
        return Flight(Decoding(self._model, self._name, *self._limits, kernels=self.kernels))

    def _take(self, queue: deque[Part], flight: Flight, more: Callable[[], bool]) -> bool:
        """Prefill the prompts that there is room for; False where none was taken."""
        if flight.rows > self.width // 2:
            return False
        while queue and flight.has_room(len(queue[0].job.missing), self.width):
            if not (queue[0].begun or more()):
                queue.clear()  # what was begun stands before all else
                break
            flight.take(queue.popleft())
        taken = [flying for flying in flight.flying if flying.groups is None]
        for flying in taken:
            flying.groups = self._groups(flying)
            flight.wait(flying.groups)
        return bool(taken)

    def _advance(self, flight: Flight) -> None:
        for group in flight.advance(self.width):
            if group.alone is not None:
                assert group.outcome is not None
                row, group.alone = group.alone, None
                group.audit = audit(self._model, self._name, row, group.outcome, *self._limits, self.kernels)

    def _land(self, queue: deque[Part], flight: Flight) -> dict[int, dict[Cell, Record]]:
        """Records of the prompts that are finished; of the others whose part has ended, the next part is put in the queue."""
        landed = flight.landed()
        records = [self._records(flying) for flying in landed]
        flight.remove(landed)
        done = {}
        for flying, found in zip(landed, records, strict=True):
            self.decoded += sum(not group.known for group in flying.groups or ())
            if flying.part.later:
                queue.appendleft(flying.part.rest(found))
            else:
                done[flying.part.place] = {**flying.part.found, **found}
        return done

    def _records(self, flying: Flying) -> dict[Cell, Record]:
        """Of all variants of a part."""
        decoded = {cell: self._record(group, cell, kept) for group in flying.groups or () for cell, kept in group.members}
        return {**flying.failed, **decoded}

    def _fitting(self, jobs: Sequence[Job]) -> int:
        """Rows that fit into the memory that is free now, were all prompts as long as the longest."""
        longest = max(jobs, key=lambda job: len(job.prompt.ids))
        tokens = len(longest.prompt.ids)
        plans = []
        for variant in longest.missing:
            with suppress(BudgetError):  # an error record, no row
                plans.append(variant.plan(tokens, self._model.config.num_hidden_layers))
        each = row_bytes(self._model, plans, tokens, self._task.max_new_tokens, self._selection) if plans else 1
        width = rows_that_fit(self._free, each)
        self._tell(f"engine.width=auto: {width} rows decode together at most, of {each / 1e6:,.1f} MB for a prompt of {tokens} tokens")
        return width

    def _smaller(self, parts: Sequence[Part], reason: str, prefilling: bool) -> Sequence[Part]:
        """What did not fit into memory together, in another way.

        Raises:
            EngineError: there is none.
        """
        job = parts[0].job
        if len(parts) == 1 and prefilling and self._shorten_pieces(len(job.prompt.ids)):
            return parts
        if len(parts) == 1 and len(job.missing) == 1:
            tokens, cell = len(job.prompt.ids), job.missing[0].cell.name
            raise EngineError(
                f"one prompt of {tokens} tokens does not fit into memory with {cell} alone ({reason}): use a smaller model.dtype, "
                "model.device_map=auto or shorter prompts"
            )
        if self.width > 1:
            self.width = max(1, min(self.width, sum(len(part.job.missing) for part in parts)) // 2)
            self._tell(f"out of memory: going on with engine.width={self.width}; budgets and prompts stay as they are")
        return parts if len(parts) > 1 else [parts[0].halved()]

    def _shorten_pieces(self, tokens: int) -> bool:
        """Halve the pieces in which prompts are prefilled; False where that is no use any more."""
        chunk = min(self._chunk or tokens, tokens)
        if chunk <= _LEAST_CHUNK_TOKENS:
            return False
        self._chunk = max(_LEAST_CHUNK_TOKENS, -(-chunk // 2))
        self._tell(f"out of memory: going on with engine.prefill_chunk={self._chunk}; budgets and prompts stay as they are")
        return True

    def _groups(self, flying: Flying) -> list[Group]:
        """The rows of a part, prefilled; of variants that have none, why."""
        job, plans = flying.part.job, dict[Variant, Plan]()
        for variant in job.missing:
            try:
                plans[variant] = variant.plan(len(job.prompt.ids), self._model.config.num_hidden_layers)
            except BudgetError as error:
                flying.failed[variant.cell] = structs.replace(_blank(job.prompt), error=str(error))
        while plans:
            try:
                with time_limit(self._engine.time_limit_seconds):
                    return self._prefill(job, plans)
            except TimeLimit as over:
                self._pasts = []
                slow = [variant for variant, plan in plans.items() if over.at in (None, plan.ranking)]
                why = self._too_long("the prefill" if over.at is None else f"the prefill, at {over.at}")
                for variant in slow:
                    flying.failed[variant.cell] = structs.replace(_blank(job.prompt), error=why)
                    del plans[variant]
        return []

    def _prefill(self, job: Job, plans: Mapping[Variant, Plan]) -> list[Group]:
        """One prefill; what kept equal entries is one group, decoded already where another cell's record has it."""
        try:
            prefilled = self._forward(job, list(plans.values()))
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise PrefillMemoryError(reason_of(error)) from error
            raise
        by_hash: dict[str, list[tuple[Cell, Kept]]] = {}
        for variant, kept in zip(plans, prefilled.kept, strict=True):
            by_hash.setdefault(kept.sha256, []).append((variant.cell, kept))
        groups = []
        for sha256, members in by_hash.items():
            twins = {cell: record for cell, record in job.done.items() if record.kept_sha256 == sha256}
            twin = next(iter(twins.values()), None)
            row = Row(len(job.prompt.ids), prefilled.logits, members[0][1].layers, prefilled.broken)
            audited = twin is None and is_audited(job.prompt.example.id, members[0][0], self._engine.audit)
            groups.append(
                Group(
                    prompt=job.prompt,
                    members=members,
                    leader=min([*twins, *(cell for cell, _ in members)], key=self._order.__getitem__),
                    full_bytes=prefilled.full_bytes,
                    row=row,
                    known=twin is not None,
                    outcome=None if twin is None else Generated(tuple(twin.tokens), twin.error),
                    alone=replace(row, layers=list(row.layers)) if audited else None,
                )
            )
        return groups

    def _forward(self, job: Job, plans: Sequence[Plan]) -> Prefilled:
        """The prompt in one pass or in pieces, from the longest beginning that is held; what later ones begin with is held for them."""
        ids: list[int] = job.prompt.ids.tolist()
        known = [past for past in self._pasts if past.begins(ids)]
        past = max(known, key=lambda past: len(past.ids), default=None)
        self._pasts = [past for past in known if len(past.ids) in job.held]
        done = len(past.ids) if past is not None else 0
        self.prefills += 1
        self.prompt_tokens += len(ids)
        self.prefilled_tokens += len(ids) - done
        for stop in pauses(done, len(ids), self._chunk, job.held):
            past = extend(self._model, self._name, ids[:stop], plans, self._selection, past)
            if stop in job.held:
                self._pasts.append(past)
        return prefill(self._model, self._name, ids, plans, self._selection, past, self.kernels)

    def _record(self, group: Group, cell: Cell, kept: Kept) -> Record:
        assert group.outcome is not None
        prompt, tokens, error = group.prompt, group.outcome.tokens, group.outcome.error
        text = None
        if self._tokenizer is not None and error is None:
            decoded = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            assert isinstance(decoded, str)
            text = decoded
        scores: Mapping[str, float] = {}
        if error is None:
            try:
                with time_limit(self._engine.time_limit_seconds):
                    scores = self._task.score(prompt.example, text)
            except TimeLimit:
                text, error = None, self._too_long("scoring the text")
        return structs.replace(
            _blank(prompt),
            tokens=tokens,
            text=text,
            scores=scores,
            kept=kept.entries,
            retention=sum(kept.entries) / len(kept.entries) / len(prompt.ids),
            kept_bytes=kept.bytes,
            retention_bytes=kept.bytes / group.full_bytes,
            kept_sha256=kept.sha256,
            tied_heads=kept.tied_heads,
            alias_of=None if group.leader == cell else group.leader.name,
            error=error,
            # A row is counted once, in the first of the cells that share it.
            audit=group.audit if cell == group.members[0][0] else None,
        )

    def _too_long(self, what: str) -> str:
        return f"{what} took longer than engine.time_limit_seconds={self._engine.time_limit_seconds}: raise it, or look at the example"


def _blank(prompt: Prompt) -> Record:
    """What is known of a record before its prefill."""
    return Record(
        example_id=prompt.example.id,
        group=prompt.example.group,
        references=prompt.example.references,
        details=prompt.example.details,
        prompt_tokens=len(prompt.ids),
        prompt_sha256=prompt.sha256,
        tokens_before_truncation=prompt.example.tokens_before_truncation,
        prompt_ends=prompt.ends,
    )
