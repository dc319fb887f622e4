"""How the entries to keep are picked from scores: head groups, order, ties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.compression.method import LayerState, Ranking
from harness.values import check


@dataclass(frozen=True)
class Selection:
    """How the entries to keep are picked from scores.

    Attributes:
        granularity: one kept set per query head (as published: the cache then stores every query head) or per kv head.
        group: how the scores of the query heads that share a kv head are reduced (``kv_head`` only).
        ties: ``stable`` prefers the lowest index, on every device; ``torch`` takes what ``torch.topk`` takes.
        dtype: scores in float32, or in the model's dtype as the published code has them.

    Raises:
        ConfigError: a value that is none of its choices.
    """

    granularity: Literal["query_head", "kv_head"]
    group: Literal["mean", "max", "sum"]
    ties: Literal["stable", "torch"]
    dtype: Literal["float32", "model"]

    def __post_init__(self) -> None:
        check(self, "selection")


def group_heads(scores: Tensor, kv_heads: int, selection: Selection) -> Tensor:
    """Scores of the cache's heads: [H, candidates] as they are, or reduced over each group to [Hk, candidates]."""
    if selection.granularity == "query_head":
        return scores
    grouped = scores.reshape(kv_heads, -1, scores.shape[1])
    if selection.group == "max":
        return grouped.amax(1)
    return grouped.mean(1) if selection.group == "mean" else grouped.sum(1)


class Order:
    """The candidates of one layer, best first, for cuts at any length.

    With ``ties=stable`` it is one sort whose prefixes are the kept sets of all budgets; with ``ties=torch`` each cut is
    the ``torch.topk`` that the published code would have called.
    """

    def __init__(self, scores: Tensor, candidates: int, ties: Literal["stable", "torch"]) -> None:
        """Take the scores of one layer.

        Args:
            scores: [heads, candidates], larger is better; one column more after an even pooling kernel, which is never
                kept.
            candidates: tokens before the window.
            ties: who wins among equal scores.
        """
        self.scores = scores[:, :candidates]
        self._uncut = scores
        self._sorted = self.scores.sort(dim=-1, descending=True, stable=True).indices if ties == "stable" else None

    def best(self, count: int) -> Tensor:
        """Indices [heads, count] of the ``count`` best candidates, ascending."""
        if self._sorted is not None:
            chosen = self._sorted[:, :count]
        else:
            chosen = self._uncut.topk(count, dim=-1).indices
            # The published code would read past its candidates here.
            if self._uncut.shape != self.scores.shape and bool((chosen == self.scores.shape[1]).any()):
                chosen = self.scores.topk(count, dim=-1).indices
        return chosen.sort(dim=-1).values

    def tied_heads(self, chosen: Tensor) -> Tensor:
        """How many heads (a 0-d tensor) had a candidate outside ``chosen`` with the score of the last one inside."""
        if chosen.shape[1] == 0:
            return torch.zeros((), dtype=torch.int64, device=chosen.device)
        threshold = self.scores.gather(1, chosen).amin(1, keepdim=True)
        return ((self.scores >= threshold).sum(1) > chosen.shape[1]).sum()


def order_of(ranking: Ranking, layer: LayerState, selection: Selection, raw: Tensor | None = None) -> Order:
    """The order in which a ranking keeps the candidates of one layer, whose raw scores may be known already."""
    if raw is None:
        raw = ranking.raw(layer)
    scores = group_heads(raw.expand(layer.queries.shape[0], -1), layer.keys.shape[0], selection)
    return Order(ranking.finish(scores), scores.shape[1], selection.ties)


def kept_indices(order: Order | None, keep: int, window: int, tokens: int, heads: int, device: torch.device) -> Tensor:
    """Indices [heads, keep] of the kept entries, ascending: the best candidates, then the trailing window."""
    trailing = torch.arange(tokens - window, tokens, device=device).expand(heads, window)
    if order is None or keep == window:
        return trailing
    return torch.cat([order.best(keep - window), trailing], dim=1)
