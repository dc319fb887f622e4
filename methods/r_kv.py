"""R-KV: what the last queries attend to and no other key repeats, chosen anew whenever a number of tokens was written.

Claim: answers of reasoning models repeat themselves, so a bounded cache should keep what is important and not redundant
    (Cai et al., arXiv:2505.24133).
Source: https://github.com/Zefan-Cai/R-KV at d15c976. Its README says mix=0.1; its code and this file take 0.07.
Differs:
    - its eviction after a token with a line break, and its retained shares of similar keys, which change nothing or one
      entry, are left out.
    - it counts tokens over all prompts of a run; here each prompt begins anew.
    - with ``selection.granularity=query_head`` the query heads of a kv head keep equal sets, as they vote together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional

from harness.compression.attention_weights import Softmax
from harness.compression.eviction import Entries, Every, Evictor
from harness.compression.method import LayerState, Method, Scorer, require_above
from harness.compression.scorers import Kernel, Window

Share = Annotated[float, Meta(ge=0, le=1)]
Spared = Literal["last", "first"]
_SIMILAR = 0.5
"""Cosine above which two keys are similar."""
_MOST_ROWS, _MOST_COSINES = 1024, 2**21
"""Keys of a head that are compared with all others at once, and numbers that this may take."""


def importance(queries: Tensor, keys: Tensor, softmax: Softmax, window: int, kernel: int) -> Tensor:
    """Attention from queries to all but the last keys, [..., kv_heads, tokens - window].

    Args:
        queries: [..., kv_heads, query heads of each, queries, D]; of the query heads the largest product counts.
        keys: [..., kv_heads, tokens, D].
        softmax: how products become logits; sinks have no part in a mean over heads.
        window: number of last keys that are left out.
        kernel: width of the max-pooling over neighbours.
    """
    earlier = keys[..., : keys.shape[-2] - window, :].unsqueeze(-3)
    logits = softmax.capped_(queries @ earlier.transpose(-1, -2) * softmax.scaling).amax(-3)
    weights = logits.softmax(-1, dtype=torch.float32).mean(-2)
    pooled: Tensor = functional.max_pool1d(weights.flatten(0, -2)[None], kernel, stride=1, padding=kernel // 2)[0]
    return pooled[:, : weights.shape[-1]].view(weights.shape)


def redundancy(keys: Tensor, window: int, spared: Spared) -> Tensor:
    """How much other keys resemble each but the last ones, [..., kv_heads, tokens - window]; it sums to 1 over all.

    Of the keys that are similar to one, the last or the first does not count, so that one of them remains. Where none
    is similar, the first key of all does not.
    """
    tokens = keys.shape[-2]
    normed = keys.float() / (keys.float().norm(dim=-1, keepdim=True) + 1e-8)
    place = torch.arange(tokens, device=keys.device, dtype=torch.int32)
    together = min(_MOST_ROWS, max(1, _MOST_COSINES // tokens))
    total = normed.new_zeros(keys.shape[:-1])
    for start in range(0, tokens, together):
        rows = place[start : start + together]
        cosines = normed[..., rows, :] @ normed.transpose(-1, -2)
        cosines.masked_fill_(rows[:, None] == place, 0)
        last = torch.where(cosines > _SIMILAR, place, 0).amax(-1, keepdim=True).long()
        # That code looks for the smallest index with 0 in the place of what is not similar.
        cosines.scatter_(-1, last if spared == "last" else torch.zeros_like(last), 0)
        total += cosines.sum(-2)
    whole: Tensor = (total / tokens).softmax(-1)
    return whole[..., : tokens - window]


@dataclass(frozen=True)
class Unrepeated(Scorer):
    """Importance less redundancy.

    Attributes:
        window: number of trailing queries that vote; their tokens are always kept.
        kernel: width of the max-pooling of the attention.
        mix: share of importance in the score, 0-1.
        spared: which of a key's similar ones does not count as its repetition.
    """

    window: Window
    kernel: Kernel
    mix: Share
    spared: Spared

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens - window] in float32."""
        (tokens, dim), kv_heads = layer.keys.shape[1:], layer.keys.shape[0]
        queries = layer.queries[:, tokens - self.window :].reshape(kv_heads, -1, self.window, dim)
        return self.of(queries, layer.keys, layer.softmax)

    def of(self, queries: Tensor, keys: Tensor, softmax: Softmax) -> Tensor:
        """The scores of all but the last keys; see ``importance``."""
        important = importance(queries, keys, softmax, self.window, self.kernel)
        return self.mix * important - (1 - self.mix) * redundancy(keys, self.window, self.spared)


@dataclass(frozen=True)
class UnrepeatedEntries(Evictor):
    """The scorer's scores of the entries in the order of the cache, which is the one that they were chosen in.

    Attributes:
        unrepeated: the scorer.
    """

    reorders: ClassVar[bool] = True
    unrepeated: Unrepeated

    @property
    def ordered(self) -> bool:
        """True: pooling and similar keys look at neighbours and last ones in the cache."""
        return True

    @property
    def queries(self) -> int:
        """Those of the window."""
        return self.unrepeated.window

    def phase(self, position: int) -> int:
        """Tokens since the last multiple of the interval."""
        return position % self.evict_every

    def due(self, calls: int, tokens: int, new: int, total: int, budget: int) -> bool:
        """After a call that followed one at whose end there were a multiple of ``evict_every`` tokens."""
        return (total - new) % self.evict_every == 0

    def kept(self, entries: Entries, target: int) -> Tensor:
        """The best ones by falling scores, then the window."""
        assert entries.queries is not None
        (rows, heads, count), kv_heads = entries.keys.shape[:3], entries.layer.keys.shape[0]
        window = self.unrepeated.window
        queries = entries.queries.reshape(rows, kv_heads, -1, *entries.queries.shape[3:])
        # Query heads of one kv head hold the same entries.
        scores = self.unrepeated.of(queries, entries.keys[:, :: heads // kv_heads], entries.layer.softmax)
        best = scores.argsort(dim=-1, descending=True, stable=True)[..., : target - window]
        last = torch.arange(count - window, count, device=best.device).expand(rows, kv_heads, -1)
        return torch.cat([best, last], -1).repeat_interleave(heads // kv_heads, dim=1)


@dataclass(frozen=True)
class RKV(Method):
    """Keep what the last queries attend to most and what few other keys resemble, at every few tokens.

    Attributes:
        window: trailing queries that vote; their tokens are always kept.
        kernel: width of the max-pooling over neighbours in the cache.
        mix: share of importance in the score; the rest is redundancy.
        spared: which of a key's similar ones does not count as its repetition: the ``last`` or the ``first``.
        evict_every: tokens of prompt and answer together, after whose multiples entries are dropped.
    """

    window: Window
    kernel: Kernel
    mix: Share
    spared: Spared
    evict_every: Every

    @property
    def scorer(self) -> Unrepeated:
        """Importance less redundancy."""
        return Unrepeated(self.window, self.kernel, self.mix, self.spared)

    @property
    def evictor(self) -> UnrepeatedEntries:
        """The same, among entries."""
        return UnrepeatedEntries(self.evict_every, self.scorer)

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above ``window``."""
        require_above(budget, "window", self.window, self.label)
