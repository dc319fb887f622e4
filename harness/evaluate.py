"""Prompts to records: one prefill per prompt for all variants, equal kept sets decoded once, everything decoded wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from harness.decode import Generated, Row, decode
from harness.engine import EngineSettings
from harness.errors import BudgetError, EngineError
from harness.grid import Variant
from harness.prefill import Kept, Past, Plan, Prefilled, extend, prefill
from harness.prompt import Prompt
from harness.schema import Cell, Record, Selection
from harness.task import Task


@dataclass(frozen=True)
class Job:
    """What is still to do for one prompt.

    Attributes:
        prompt: the prompt.
        missing: variants without a record, in the order of the grid.
        done: records that other cells of the grid have of this prompt, by cell.
        shared: tokens that the next job's prompt begins with, too.
    """

    prompt: Prompt
    missing: tuple[Variant, ...]
    done: Mapping[Cell, Record]
    shared: int


@dataclass
class _Group:
    """Variants of one prompt that kept the same entries: one row.

    Attributes:
        leader: the first cell of the grid that kept these entries; the others are its aliases.
        full_bytes: bytes of the stock full cache.
        outcome: None until it is decoded.
    """

    prompt: Prompt
    members: Sequence[tuple[Cell, Kept]]
    leader: Cell
    full_bytes: int
    row: Row
    outcome: Generated | None


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
            tell: called with a line when the width is reduced.
        """
        self.prefills = 0
        self.prompt_tokens = 0
        self.prefilled_tokens = 0
        self.decoded = 0
        self.width = 1 if engine.exact else engine.width
        self._engine = engine
        self._past: Past | None = None
        self._model = model
        self._name = name
        self._tokenizer = tokenizer
        self._task = task
        self._stops = task.stop_ids(tokenizer, end_ids)
        self._order = {cell: place for place, cell in enumerate(order)}
        self._selection = selection
        self._tell = tell

    def batch(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """As many of the first jobs as have at most ``width`` rows together, one at least."""
        rows = 0
        for place, job in enumerate(jobs):
            rows += len(job.missing)
            if place and rows > self.width:
                return jobs[:place]
        return jobs

    def records(self, jobs: Sequence[Job]) -> dict[Cell, list[Record]]:
        """The missing records of some jobs, by cell.

        When memory runs out the jobs are done in halves, and from then on with half the rows; what is kept and generated stays the same.

        Raises:
            EngineError: one variant of one prompt does not fit into memory.
        """
        try:
            return self._records(jobs)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # Outside the handler, so that the failed attempt's tensors are gone.
        self._past = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(jobs) == 1 and len(jobs[0].missing) == 1:
            tokens, cell = len(jobs[0].prompt.ids), jobs[0].missing[0].cell.name
            raise EngineError(
                f"one prompt of {tokens} tokens does not fit into memory with {cell} alone ({reason}): use a smaller model.dtype, "
                "model.device_map=auto or shorter prompts"
            )
        if self.width > 1:
            self.width = max(1, min(self.width, sum(len(job.missing) for job in jobs)) // 2)
            self._tell(f"out of memory: going on with engine.width={self.width}; budgets and prompts stay as they are")
        if len(jobs) > 1:
            middle = len(jobs) // 2
            return _merged(self.records(jobs[:middle]), self.records(jobs[middle:]))
        (job,) = jobs
        middle = len(job.missing) // 2
        first = self.records([replace(job, missing=job.missing[:middle])])
        done = {**job.done, **{cell: records[0] for cell, records in first.items()}}
        return _merged(first, self.records([replace(job, missing=job.missing[middle:], done=done)]))

    def _records(self, jobs: Sequence[Job]) -> dict[Cell, list[Record]]:
        records: dict[Cell, list[Record]] = {}
        groups: list[_Group] = []
        for job in jobs:
            plans: dict[Variant, Plan] = {}
            for variant in job.missing:
                try:
                    plans[variant] = variant.plan(len(job.prompt.ids), self._model.config.num_hidden_layers)
                except BudgetError as error:
                    records.setdefault(variant.cell, []).append(replace(_blank(job.prompt), error=str(error)))
            if plans:
                groups += self._prefill(job, plans)
        waiting = [group for group in groups if group.outcome is None]
        for start in range(0, len(waiting), self.width):
            self._decode(waiting[start : start + self.width])
        for group in groups:
            for cell, kept in group.members:
                records.setdefault(cell, []).append(self._record(group, cell, kept))
        return records

    def _prefill(self, job: Job, plans: Mapping[Variant, Plan]) -> list[_Group]:
        """One prefill; what kept equal entries is one group, decoded already where another cell's record has it."""
        prefilled = self._forward(job, list(plans.values()))
        by_hash: dict[str, list[tuple[Cell, Kept]]] = {}
        for variant, kept in zip(plans, prefilled.kept, strict=True):
            by_hash.setdefault(kept.sha256, []).append((variant.cell, kept))
        groups = []
        for sha256, members in by_hash.items():
            twins = {cell: record for cell, record in job.done.items() if record.kept_sha256 == sha256}
            twin = next(iter(twins.values()), None)
            groups.append(
                _Group(
                    prompt=job.prompt,
                    members=members,
                    leader=min([*twins, *(cell for cell, _ in members)], key=self._order.__getitem__),
                    full_bytes=prefilled.full_bytes,
                    row=Row(len(job.prompt.ids), prefilled.logits, members[0][1].layers),
                    outcome=None if twin is None else Generated(tuple(twin.tokens), twin.error),
                )
            )
        return groups

    def _forward(self, job: Job, plans: Sequence[Plan]) -> Prefilled:
        """The prompt in one pass or in pieces; what the next one begins with, too, is kept for it."""
        ids: list[int] = job.prompt.ids.tolist()
        past = self._past if self._past is not None and self._past.begins(ids) else None
        self._past = None
        done = len(past.ids) if past is not None else 0
        self.prefills += 1
        self.prompt_tokens += len(ids)
        self.prefilled_tokens += len(ids) - done
        for stop in self._engine.stops(done, len(ids), job.shared):
            if self._engine.reuse_prefix and past is not None and len(past.ids) <= job.shared:
                self._past = past
            past = extend(self._model, self._name, ids[:stop], plans, self._selection, past)
        if self._engine.reuse_prefix and past is not None and len(past.ids) <= job.shared:
            self._past = past
        return prefill(self._model, self._name, ids, plans, self._selection, past)

    def _decode(self, groups: Sequence[_Group]) -> None:
        outcomes = decode(
            self._model,
            self._name,
            [group.row for group in groups],
            self._stops,
            self._task.max_new_tokens,
            self._task.min_new_tokens,
        )
        self.decoded += len(groups)
        for group, outcome in zip(groups, outcomes, strict=True):
            group.outcome = outcome

    def _record(self, group: _Group, cell: Cell, kept: Kept) -> Record:
        assert group.outcome is not None
        prompt, tokens, error = group.prompt, group.outcome.tokens, group.outcome.error
        text = None
        if self._tokenizer is not None and error is None:
            decoded = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
            assert isinstance(decoded, str)
            text = decoded
        return replace(
            _blank(prompt),
            tokens=tokens,
            text=text,
            scores=self._task.score(prompt.example, text) if error is None else {},
            kept=kept.entries,
            retention=sum(kept.entries) / len(kept.entries) / len(prompt.ids),
            kept_bytes=kept.bytes,
            retention_bytes=kept.bytes / group.full_bytes,
            kept_sha256=kept.sha256,
            tied_heads=kept.tied_heads,
            alias_of=None if group.leader == cell else group.leader.name,
            error=error,
        )


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


def _merged(first: dict[Cell, list[Record]], second: dict[Cell, list[Record]]) -> dict[Cell, list[Record]]:
    return {cell: first.get(cell, []) + second.get(cell, []) for cell in {**first, **second}}


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
