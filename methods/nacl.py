"""NACL: the tokens that proxy tokens at the prompt's ends attend to most, and some drawn by chance.

Claim: proxy tokens judge the others with less bias than all do, and chance keeps what they miss (Chen et al.,
    arXiv:2408.03675).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, a function that no runner calls.
Differs:
    - drawn tokens come from ``seed``, layer by layer, by their scores as there, but not by the same generator.
    - where proxy tokens do not all fit into the budget, the newest are kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import First, forced
from harness.values import LARGEST

Proxy = Literal["suffix", "prefix", "edges"]
Temperature = Annotated[float, Meta(gt=0)]
Seed = Annotated[int, Meta(ge=0, le=LARGEST)]
Share = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True)
class ProxyAttention(Scorer):
    """Attention from proxy tokens, which come before all others; some of the rest is drawn by chance.

    Attributes:
        proxy: which tokens vote: the last ones, the first ones, or both ends.
        size: number of last or, with ``prefix``, first tokens that vote, 0 or more.
        sinks: number of first tokens that vote with ``edges``, 0 or more.
        drawn: share of the budget that is drawn by chance, 0-1.
        temperature: divides the scores of the draw, above 0.
        seed: what is drawn from.

    Raises:
        ConfigError: a knob out of range.
    """

    window: ClassVar[int] = 0
    proxy: Proxy
    size: First
    sinks: First
    drawn: Share
    temperature: Temperature
    seed: Seed

    def score(self, layer: LayerState) -> Tensor:
        """Attention received from the proxy tokens, [heads, tokens] in the layer's score dtype."""
        heads, tokens, _ = layer.queries.shape
        scores = layer.queries.new_zeros(heads, tokens, dtype=layer.score_dtype)
        queries, keys = layer.queries.to(layer.score_dtype), layer.keys.to(layer.score_dtype)
        first, last = self._ends(tokens)
        # Tokens at the beginning see nothing after themselves.
        for start, stop in ((0, first), (max(first, tokens - last), tokens)):
            if stop > start:
                rows = attention_rows(queries[:, start:stop], keys[:, :stop], layer.softmax, block_bytes=2**62)
                ((_, _, attention),) = rows
                scores[:, :stop] += attention.sum(dim=1)
        return scores

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the proxy tokens."""
        return forced(scores, *self._ends(scores.shape[1]))

    def rerank(self, scores: Tensor, layer: LayerState, counts: Tensor) -> Tensor:
        """Keep the best but for the share of chance; the rest is drawn by the softmax of the scores."""
        if not self.drawn:
            return scores
        tokens = scores.shape[1]
        sure = counts - (counts * self.drawn).floor().long()
        ranks = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
        generator = torch.Generator().manual_seed(self.seed + layer.index)
        uniform = torch.rand(scores.shape, generator=generator).clamp(min=1e-20).to(scores.device)
        # The largest of log-weights with Gumbel noise are a draw without replacement.
        noisy = scores.float() / self.temperature - (-uniform.log()).log()
        return torch.where(ranks < sure[:, None], noisy.amax() + 1 + tokens - ranks, noisy)

    def _ends(self, tokens: int) -> tuple[int, int]:
        """Numbers of first and last tokens that vote."""
        first = {"suffix": 0, "prefix": self.size, "edges": self.sinks}[self.proxy]
        return min(first, tokens), 0 if self.proxy == "prefix" else min(self.size, tokens)


@dataclass(frozen=True)
class NACL(Method):
    """Keep proxy tokens, what they attend to most, and some tokens by chance.

    Attributes:
        proxy: ``suffix``, ``prefix`` or ``edges``.
        size: number of last or, with ``prefix``, first tokens that vote.
        sinks: number of first tokens that vote with ``edges``.
        drawn: share of the budget that is drawn by chance.
        temperature: divides the scores of the draw.
        seed: what is drawn from.
    """

    proxy: Proxy
    size: First
    sinks: First
    drawn: Share
    temperature: Temperature
    seed: Seed

    @property
    def scorer(self) -> ProxyAttention:
        """Attention from proxy tokens."""
        return ProxyAttention(self.proxy, self.size, self.sinks, self.drawn, self.temperature, self.seed)
