"""The selection of entries by their scores: head groups, order, ties."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.compression.method import LayerState, Reranks, Scorer
from harness.compression.wrappers import Rescorer
from harness.values import check


@dataclass(frozen=True)
class Selection:
    """How the entries to keep are selected by their scores.

    Attributes:
        granularity: ``query_head`` keeps one set of entries per query head, as published, so that the cache stores
            every query head; ``kv_head`` keeps one per kv head.
        group: how the scores of query heads that share a kv head are reduced; used with ``kv_head`` alone.
        ties: ``stable`` prefers the lowest index, on every device; ``torch`` takes what ``torch.topk`` takes.
        dtype: ``float32`` scores, or scores in the ``model``'s dtype, as in the published code.
        after: where the prefill ends and entries are selected: after the whole ``prompt``, or after the ``context``,
            before the question is seen, which then runs through the compressed cache.

    Raises:
        ConfigError: a value is none of its choices.
    """

    granularity: Literal["query_head", "kv_head"]
    group: Literal["mean", "max", "sum"]
    ties: Literal["stable", "torch"]
    dtype: Literal["float32", "model"]
    after: Literal["prompt", "context"] = "prompt"

    def __post_init__(self) -> None:
        check(self, "selection")


def group_heads(scores: Tensor, heads: int, kv_heads: int, selection: Selection) -> Tensor:
    """Scores of the cache's heads.

    Args:
        scores: [heads, candidates] of the query heads, [kv_heads, candidates], or [1, candidates] for all heads.
        heads: number of query heads, H.
        kv_heads: number of kv heads, Hk.
        selection: how entries are selected.

    Returns:
        [H, candidates] with ``granularity=query_head``, else [Hk, candidates].
    """
    rows = len(scores)
    if selection.granularity == "query_head":
        return scores.expand(heads, -1) if rows == 1 else scores.repeat_interleave(heads // rows, dim=0)
    if rows in (1, kv_heads):
        return scores.expand(kv_heads, -1)
    grouped = scores.reshape(kv_heads, -1, scores.shape[1])
    if selection.group == "max":
        return grouped.amax(1)
    return grouped.mean(1) if selection.group == "mean" else grouped.sum(1)


class Order:
    """The candidates of one layer, best first, for cuts at any length.

    With ``ties=stable`` it is one sort, whose prefixes are the kept sets of all budgets. With ``ties=torch`` each cut
    is the ``torch.topk`` that the published code would call.

    Attributes:
        scores: [heads, candidates].
        ties: which candidate wins among equal scores.
    """

    def __init__(self, scores: Tensor, candidates: int, ties: Literal["stable", "torch"]) -> None:
        """Take the scores of one layer.

        Args:
            scores: [heads, candidates], larger is better. An even pooling kernel adds a column, which is never kept.
            candidates: number of tokens before the window.
            ties: which candidate wins among equal scores.
        """
        self.scores = scores[:, :candidates]
        self.ties = ties
        self._uncut = scores
        self._falling, self._sorted = self.scores.sort(dim=-1, descending=True, stable=True)

    def best(self, count: int) -> Tensor:
        """Indices [heads, count] of the ``count`` best candidates, ascending."""
        if self.ties == "stable":
            chosen = self._sorted[:, :count]
        else:
            chosen = self._uncut.topk(count, dim=-1).indices
            # The added column was chosen, where the published code would read past its candidates.
            if self._uncut.shape != self.scores.shape and bool((chosen == self.scores.shape[1]).any()):
                chosen = self.scores.topk(count, dim=-1).indices
        return chosen.sort(dim=-1).values

    def of(self, head: int) -> Order:
        """The order of one head alone."""
        order = copy(self)
        one = slice(head, head + 1)
        order.scores, order._uncut = self.scores[one], self._uncut[one]
        order._falling, order._sorted = self._falling[one], self._sorted[one]
        return order

    def tied_heads(self, count: int) -> Tensor:
        """Number of heads in which the cut fell between equal scores, as a 0-d tensor.

        Args:
            count: number of candidates that each head keeps.
        """
        if count == 0:
            return torch.zeros((), dtype=torch.int64, device=self.scores.device)
        # Behind the last candidate there is nothing to compare: the slice is empty.
        return (self._falling[:, count : count + 1] == self._falling[:, count - 1 : count]).sum()


def order_of(scorer: Scorer, layer: LayerState, selection: Selection, scores: Tensor | None = None) -> Order:
    """The order in which a scorer keeps the candidates of one layer.

    Args:
        scorer: the scorer.
        layer: the state of the layer.
        selection: how entries are selected.
        scores: what ``scorer.score`` would return, if that is known already; of a ``Rescorer`` what its base would.

    Raises:
        ValueError: the scorer gave scores of another shape than its contract says.
    """
    if isinstance(scorer, Rescorer):
        return rescored(scorer, order_of(scorer.base, layer, selection, scores), layer)
    heads, (kv_heads, tokens, _) = layer.queries.shape[0], layer.keys.shape
    candidates, who = tokens - scorer.window, type(scorer).__name__
    if scores is None:
        scores = scorer.score(layer)
    _check_shape(f"{who}.score", scores, (1, kv_heads, heads), candidates, candidates)
    scores = group_heads(scores, heads, kv_heads, selection)
    smoothed = scorer.smooth(scores, layer)
    # Pooling with an even kernel adds a column.
    _check_shape(f"{who}.smooth", smoothed, (scores.shape[0],), candidates, candidates + 1)
    return Order(smoothed, candidates, selection.ties)


def rescored(scorer: Rescorer, order: Order, layer: LayerState) -> Order:
    """The order of a scorer that changes another's scores.

    Args:
        scorer: the scorer.
        order: the other scorer's order.
        layer: the state of the layer.

    Raises:
        ValueError: the scorer gave scores of another shape than its contract says.
    """
    candidates = layer.keys.shape[1] - scorer.window
    scores = scorer.rescore(order.scores, layer)
    _check_shape(f"{type(scorer).__name__}.rescore", scores, (len(order.scores),), candidates, candidates)
    return Order(scores, candidates, order.ties)


def reranked(scorer: Reranks, order: Order, layer: LayerState, counts: Tensor) -> Order:
    """The order of a scorer whose scores depend on how many candidates each head keeps.

    Args:
        scorer: the scorer.
        order: its order before.
        layer: the state of the layer.
        counts: number of candidates that each head keeps, [cache_heads].

    Raises:
        ValueError: the scorer gave scores of another shape than its contract says.
    """
    heads, candidates = order.scores.shape
    scores = scorer.rerank(order.scores, layer, counts)
    _check_shape(f"{type(scorer).__name__}.rerank", scores, (heads,), candidates, candidates)
    return Order(scores, candidates, order.ties)


def _check_shape(who: str, scores: object, heads: Sequence[int], fewest: int, most: int) -> None:
    """Refuse scores of another shape than the contract says.

    Args:
        who: the function that gave the scores.
        scores: what it gave.
        heads: the numbers of rows that it may have.
        fewest: the smallest number of columns.
        most: the largest number of columns.

    Raises:
        ValueError: the scores are no tensor of such a shape.
    """
    shape = tuple(scores.shape) if isinstance(scores, Tensor) else ()
    if len(shape) != 2 or shape[0] not in heads or not fewest <= shape[1] <= most:
        given = f"a tensor of shape {list(shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        rows = "[1, kv heads or query heads" if len(heads) > 1 else "[heads of the cache"
        wanted = " or ".join(str([count, fewest]) for count in dict.fromkeys(heads))
        raise ValueError(f"{who} gave {given} for {rows}, tokens - window], here {wanted}")


def kept_indices(order: Order | None, keep: int, window: int, tokens: int, heads: int, device: torch.device) -> Tensor:
    """Indices [heads, keep] of the kept entries, ascending: the best candidates, then the trailing window.

    Args:
        order: the ranked candidates; None if the window alone is kept.
        keep: number of kept entries, window included.
        window: number of trailing tokens that are always kept.
        tokens: length of the prompt.
        heads: number of the cache's heads.
        device: where the indices are made.
    """
    trailing = torch.arange(tokens - window, tokens, device=device).expand(heads, window)
    if order is None or keep == window:
        return trailing
    return torch.cat([order.best(keep - window), trailing], dim=1)
