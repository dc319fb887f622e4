"""Decoding: any scorer of keys, values and last queries, applied to the whole cache again and again while decoding.

Claim: what a method drops of a prompt it can also drop of a long answer.
Source: NVIDIA/kvpress 0.5.5, DecodingPress, PrefillDecodingPress and CompressionRatioDecodingPress.
Differs:
    - ``reading: positions`` scores entries in the order of their positions, with queries at their own. kvpress leaves
      the cache in the order of scores, so that neighbours and first tokens are others from the second time on, and
      turns earlier queries to the newest position: ``reading: kvpress``.
    - among equal scores the earliest entries stay; in kvpress an arbitrary part of them does.
    - a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Everything, Shape, Uniform
from harness.compression.eviction import Entries, Every, Evictor
from harness.compression.method import Method, Reranks, Scorer
from harness.compression.selection import order_of
from harness.compression.wrappers import Rescorer, Wrapper
from harness.errors import ConfigError
from harness.values import Refusal

Reading = Literal["positions", "kvpress"]
PromptShare = Annotated[
    float, Meta(gt=0, le=1), Refusal("is not a share above 0, up to 1", "null keeps the whole prompt")
]
Ratio = Annotated[float, Meta(ge=0, lt=1), Refusal("is not a share from 0 to below 1", "null takes the budget")]


@dataclass(frozen=True)
class ShareOfPrompt(Allocation):
    """A share of the prompt in every layer and head, whatever the budget.

    Attributes:
        share: above 0, up to 1.
    """

    share: float

    def total(self, budget: int, shape: Shape) -> int:
        """The share in all layers and heads."""
        return self.counts(budget, shape, ())[0] * shape.layers * shape.cache_heads

    def counts(self, budget: int, shape: Shape, seen: Sequence[object]) -> list[int]:
        """The share, 1 entry or more and at least the window."""
        return [max(1, shape.window, round(self.share * shape.tokens))] * shape.layers


@dataclass(frozen=True)
class ScoredEntries(Evictor):
    """A scorer's scores of all entries, computed anew at every eviction.

    Attributes:
        evict_every: calls of the model from one eviction to the next, 1 or more; a question is one call.
        scorer: the scorer.
        ratio: share of all tokens so far that is dropped, in place of the budget; None for the budget.
        by_scores: whether the cache's order is that of scores, and all queries stand at the newest position.
    """

    scorer: Scorer
    ratio: Ratio | None
    by_scores: bool

    @property
    def ordered(self) -> bool:
        """Whether entries lie in the order of their scores."""
        return self.by_scores

    @property
    def queries(self) -> int:
        """Those that the scorer needs."""
        return self.scorer.last_queries or 0

    def phase(self, position: int) -> int:
        """The position, if the number of entries depends on it."""
        return 0 if self.ratio is None else position

    def due(self, calls: int, tokens: int, new: int, total: int, budget: int) -> bool:
        """After so many calls, or one of many tokens."""
        return calls >= self.evict_every or new >= self.target(budget, total)

    def target(self, budget: int, total: int) -> int:
        """The budget, or what the ratio leaves of all tokens so far, cut down."""
        return budget if self.ratio is None else max(1, self.scorer.window, int(total * (1 - self.ratio)))

    def scores(self, entries: Entries) -> Tensor:
        """Scores in the order of positions; infinite for the scorer's window."""
        places = entries.positions.argsort(-1)
        index = places[..., None].expand(entries.keys.shape)
        keys, values = entries.keys.gather(2, index), entries.values.gather(2, index)
        scores = self._scores(entries, keys, values)
        return torch.empty_like(scores).scatter(-1, places, scores)

    def kept(self, entries: Entries, target: int) -> Tensor:
        """The best ones, by falling scores in the order of the cache."""
        scores = self._scores(entries, entries.keys, entries.values)
        return scores.argsort(dim=-1, descending=True, stable=True)[..., :target]

    def _scores(self, entries: Entries, keys: Tensor, values: Tensor) -> Tensor:
        """Scores [rows, cache_heads, entries] of entries in the order that the scorer takes for that of positions."""
        heads, count = keys.shape[1:3]
        window = min(self.scorer.window, count)
        every = keys.new_full((*keys.shape[:3],), torch.inf, dtype=torch.float32)
        for row, scores in enumerate(every):
            state = replace(entries.layer, queries=self._queries(entries, row), keys=keys[row], values=values[row])
            if count > window:
                found = order_of(self.scorer, state, entries.selection).scores
                scores[:, : count - window] = found.expand(heads, -1)
        return every

    def _queries(self, entries: Entries, row: int) -> Tensor:
        """The last queries of a row, [H, entries, head_dim]; of earlier tokens they are 0, and nobody reads them."""
        heads, count, dim = entries.layer.queries.shape[0], entries.keys.shape[2], entries.keys.shape[3]
        queries = entries.keys.new_zeros(heads, count, dim)
        if entries.queries is not None:
            last = entries.queries[row].flatten(0, 1)[:, -count:]
            if self.by_scores:
                steps = torch.arange(last.shape[1] - 1, -1, -1, device=last.device)
                last = entries.layer.moved(last, steps.expand(heads, -1))
            queries[:, count - last.shape[1] :] = last
        return queries


@dataclass(frozen=True)
class Decoding(Wrapper):
    """Keep what the wrapped method scores highest among all entries, at every few new tokens.

    Attributes:
        evict_every: calls of the model from one eviction to the next.
        ratio: share of all tokens so far that is dropped; None for the budget.
        prompt: the method whose scores choose what is kept of the prompt; None for the wrapped one.
        prompt_share: share of the prompt that is kept of it; None for all of it, until the first eviction.
        reading: ``positions`` or ``kvpress``.

    Raises:
        ConfigError: a knob does not fit, or the scores need what is gone while decoding.
    """

    also_wraps: ClassVar[tuple[str, ...]] = ("prompt",)
    evict_every: Every
    ratio: Ratio | None
    prompt: Method | None
    prompt_share: PromptShare | None
    reading: Reading

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.base.scorer is not None
        if self.base.scorer.last_queries is None:
            raise ConfigError(
                f"scorer={self.base.label} (method={self.label}) needs queries of all tokens, which are gone while "
                "decoding: name a method of keys, values or last queries, as scorer=snapkv"
            )
        if self.prompt is None:
            return
        prompt = f"prompt={self.prompt.label} (method={self.label})"
        if self.prompt.scorer is None or self.prompt.evictor is not None:
            raise ConfigError(
                f"{prompt} drops nothing of a prompt, or goes on while decoding: name a method of prompts alone, as "
                "prompt=snapkv"
            )
        if isinstance(self.prompt.scorer, Rescorer | Reranks) or self.prompt.allocation != Uniform():
            raise ConfigError(
                f"{prompt} has budgets or scores that depend on more: name one with the same budget in every layer "
                "and head, as prompt=snapkv"
            )
        if self.prompt_share is None:
            raise ConfigError(
                f"{prompt} has nothing to choose, as prompt_share=null keeps the whole prompt: set prompt_share=0.5 or "
                "prompt=null"
            )

    @property
    def rescores(self) -> bool:
        """False: the scores are the wrapped method's."""
        return False

    @property
    def scorer(self) -> Scorer:
        """The scores of the prompt."""
        method = self.base if self.prompt is None else self.prompt
        assert method.scorer is not None
        return method.scorer

    @property
    def allocation(self) -> Allocation:
        """The whole prompt or its share."""
        return Everything() if self.prompt_share is None else ShareOfPrompt(self.prompt_share)

    @property
    def evictor(self) -> ScoredEntries:
        """The wrapped method's scores, of all entries."""
        assert self.base.scorer is not None
        return ScoredEntries(self.evict_every, self.base.scorer, self.ratio, self.reading == "kvpress")

    @property
    def uses_budget(self) -> bool:
        """Whether there is no ratio in its place."""
        return self.ratio is None
