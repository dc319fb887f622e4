"""A grid that answers prompts: texts, or scores of continuations, of every cell from one prefill each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.compression.grid import Plan, Variant
from harness.compression.selection import Selection
from harness.engine.engine import Engine
from harness.engine.failures import SelectionFailed, failure, is_of_the_prompt, prefill_at
from harness.engine.model_spec import shape_of
from harness.engine.positions import beyond_positions
from harness.engine.prefill import Kept, Prefilled
from harness.engine.prefix import Prefiller, prefix_order
from harness.engine.prompt import Prompt
from harness.engine.request import Request, in_prefix_order
from harness.engine.rows import Generated, Limits, Row
from harness.engine.sampling import Sampling
from harness.engine.scheduler import Scheduler
from harness.engine.scoring import Scored, Tokens, score
from harness.engine.settings import EngineSettings
from harness.engine.time_limit import TimeLimit, check_time_limit, time_limit, too_long
from harness.errors import ConfigError, KvgaugeError
from harness.results import Cell, by_head
from harness.task import Example

if TYPE_CHECKING:
    from numpy.typing import NDArray

Answers = Mapping[Cell, tuple[Generated, ...]]
Scores = Mapping[Cell, tuple[Scored, ...]]


@dataclass
class Tally:
    """What a cell kept of the contexts that it has answered for.

    Attributes:
        contexts: number of contexts.
        compressed: number of those of which it did not keep everything.
        bytes: bytes of all kept entries.
        full_bytes: bytes of the full caches as transformers stores them.
    """

    contexts: int = 0
    compressed: int = 0
    bytes: int = 0
    full_bytes: int = 0

    def add(self, kept: Kept, tokens: int, full_bytes: int) -> None:
        """Count a context of so many tokens."""
        self.contexts += 1
        self.compressed += any(count < tokens for counts in kept.entries for count in by_head(counts))
        self.bytes += kept.bytes
        self.full_bytes += full_bytes


@dataclass
class AnsweringGrid:
    """The variants of a model that answer the same prompts.

    Attributes:
        engine: the model.
        variants: the cells, each with its method and budget.
        selection: how entries are selected; always after the whole prompt.
        settings: how rows are computed.
        tell: called with a line of text when memory makes the width or the chunks smaller.
        tallies: what each cell kept so far.
    """

    engine: Engine
    variants: tuple[Variant, ...]
    selection: Selection
    settings: EngineSettings
    tell: Callable[[str], None]
    tallies: dict[Cell, Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tallies = {variant.cell: Tally() for variant in self.variants}

    def generate(
        self, prompts: Sequence[Sequence[int]], limits: Limits, sampling: Sampling
    ) -> Iterator[tuple[int, Answers]]:
        """Answer prompts from every cell's compressed cache.

        Args:
            prompts: token ids of each prompt, 1 or more; no two are alike.
            limits: when an answer ends.
            sampling: how tokens are chosen, and the number of answers to each prompt.

        Yields:
            The index of a prompt and its answers, in any order.

        Raises:
            EngineError: a prompt does not fit into memory, or the device failed.
        """
        variants = tuple(replace(variant, drawn=sampling.drawn) for variant in self.variants)
        order = [variant.cell for variant in variants]
        scheduler = Scheduler(self.engine, limits, order, self.selection, self.settings, self.tell, None, sampling)
        requests = [Request(_prompt(ids), variants, {}) for ids in prompts]
        places = {request.prompt.sha256: index for index, request in enumerate(requests)}
        if self.settings.reuse_prefix:
            requests = in_prefix_order(requests)
        for finished in scheduler.run(requests, lambda: True):
            for request, outcomes in finished:
                answers = {}
                for cell, outcome in outcomes.items():
                    answers[cell] = outcome.samples or (outcome.generated,)
                    if outcome.kept is not None:
                        tokens = request.prompt.context_tokens
                        self.tallies[cell].add(outcome.kept, tokens, outcome.full_bytes)
                yield places[request.prompt.sha256], answers

    def score(self, contexts: Mapping[Tokens, Sequence[Tokens]]) -> Iterator[tuple[Tokens, Scores]]:
        """Score continuations through every cell's compressed cache.

        Entries are selected at the end of a context, before its last token. This token and the continuation then run
        through what was kept, so that no token of a continuation is scored with the full cache. A context of one
        token has nothing that could be dropped.

        Args:
            contexts: for each context of 1 or more tokens, its continuations of 1 or more tokens.

        Yields:
            A context and the scores of its continuations in their order, in any order of contexts.

        Raises:
            EngineError: a context does not fit into memory, or the device failed.
        """
        if self.settings.time_limit_seconds is not None:
            check_time_limit()
        prefiller = Prefiller(self.engine, self.selection, self.settings.chunk_tokens)
        asked = list(contexts)
        order: Sequence[tuple[int, tuple[int, ...]]] = [(index, ()) for index in range(len(asked))]
        if self.settings.reuse_prefix:
            order = prefix_order([np.asarray(_read_first(ids), dtype="<i4") for ids in asked])
        for index, hold in order:
            yield asked[index], self._scores(prefiller, asked[index], contexts[asked[index]], hold)

    def _scores(
        self, prefiller: Prefiller, context: Tokens, continuations: Sequence[Tokens], hold: tuple[int, ...]
    ) -> Scores:
        first, config = _read_first(context), self.engine.model.config
        rest = context[len(first) :]
        read = len(context) + max(map(len, continuations)) - 1
        if (beyond := beyond_positions(config, read, 1, read - len(first))) is not None:
            failed = Scored(float("nan"), False, beyond)
            return {variant.cell: (failed,) * len(continuations) for variant in self.variants}
        plans: dict[Cell, Plan] = {}
        failures: dict[Cell, str] = {}
        for variant in self.variants:
            try:
                plans[variant.cell] = variant.plan(shape_of(config, len(first), self.selection))
            except ConfigError as error:
                failures[variant.cell] = str(error)
        prefilled = self._prefilled(prefiller, first, plans, failures, hold)
        rows: dict[tuple[str, Tokens], Row] = {}
        targets: dict[tuple[str, Tokens], list[Tokens]] = {}
        places: dict[Cell, list[tuple[tuple[str, Tokens], int]]] = {cell: [] for cell in plans}
        for cell, kept in zip(plans, prefilled.kept if prefilled is not None else (), strict=True):
            self.tallies[cell].add(kept, len(first), prefilled.full_bytes if prefilled is not None else 0)
            for continuation in continuations:
                # Continuations that differ in their last token are read once, and so are equal sets of kept entries.
                question = (*rest, *continuation[:-1])
                key = kept.sha256, question
                if key not in rows:
                    assert prefilled is not None
                    new = kept.first_new(len(first), len(question))
                    rows[key] = Row(new, prefilled.logits, list(kept.layers), prefilled.broken, question)
                    targets[key] = []
                if continuation not in targets[key]:
                    targets[key].append(continuation)
                places[cell].append((key, targets[key].index(continuation)))
        width = self.settings.width if isinstance(self.settings.width, int) else 64
        width = 1 if self.settings.exact else width
        scored = score(self.engine, list(rows.values()), list(targets.values()), width) if rows else []
        by_row = dict(zip(rows, scored, strict=True))
        found: dict[Cell, tuple[Scored, ...]] = {
            cell: tuple(by_row[key][place] for key, place in at) for cell, at in places.items()
        }
        for cell, why in failures.items():
            found[cell] = (Scored(float("nan"), False, why),) * len(continuations)
        return found

    def _prefilled(
        self,
        prefiller: Prefiller,
        ids: Tokens,
        plans: dict[Cell, Plan],
        failures: dict[Cell, str],
        hold: tuple[int, ...],
    ) -> Prefilled | None:
        """What the plans keep; those whose method fails become failures. None if none is left."""
        limit = self.settings.time_limit_seconds
        while plans:
            try:
                with time_limit(limit):
                    return prefiller.prefill(ids, list(plans.values()), hold)
            except TimeLimit as expired:
                at, why = expired.at, too_long(prefill_at(expired.at), limit)
            except KvgaugeError:
                raise
            except SelectionFailed as error:
                at, why = error.at, failure(prefill_at(error.at), error.__cause__ or error)
            except Exception as error:
                if not is_of_the_prompt(error):
                    raise
                at, why = None, failure(prefill_at(None), error)
            prefiller.forget()
            for cell in [cell for cell, plan in plans.items() if at in (None, plan.scorer, plan.waiting, plan.storage)]:
                failures[cell] = why
                del plans[cell]
        return None


def _read_first(context: Tokens) -> Tokens:
    """The tokens of a context after which entries are selected: all but the last, which predicts what comes next."""
    return context[:-1] or context


def _prompt(ids: Sequence[int]) -> Prompt:
    """A prompt without an example of a task; what is drawn for it goes by its tokens."""
    array: NDArray[np.int32] = np.asarray(ids, dtype="<i4")
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return Prompt(Example(digest, ()), array, digest, (), False, len(ids))
