"""KVzip: the tokens that a model attends to when it repeats the context, before any question is known.

Claim: what is needed to reconstruct the context serves every question on it (Kim et al., arXiv:2505.23416).
Source: NVIDIA/kvpress 0.5.5, KVzipPress.
Differs:
    - kvpress masks what it drops, in a cache that stays as long as the context; here it is dropped.
    - kvpress takes what stands around the user's message from the chat template; here ``suffix`` and ``skip`` name it.
    - a share of the prompt is exact here, where kvpress multiplies doubles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from msgspec import Meta
from torch import Tensor

from harness.compression.allocation import Allocation, Counts, Seen, Shape
from harness.compression.head_budgets import shares_of_best
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.replay import Replay, Replayed
from harness.compression.score_parts import First, forced
from harness.errors import ConfigError

_OVERLAP = 8
"""Last tokens of a chunk that the instruction for the next one names."""


@dataclass(frozen=True)
class RepeatedContext(Scorer):
    """The largest attention weight that a token gets while the model repeats its chunk of the context.

    Attributes:
        chunk_size: tokens that are repeated at a time.
        sinks: first tokens that are in every softmax, and are always kept.
        normalise: whether a weight is multiplied by the norm of what the value becomes in the output projection, over
            the norm of what the attention reads at the repeating token (KVzip+).
        instruction: text that asks for the first chunk.
        instruction_part: text that asks for a later one; the last tokens of the chunk before follow it.
        suffix: text between the instruction and the repeated chunk.
        skip: number of first tokens that are not repeated, as they belong to a chat template.
    """

    window: ClassVar[int] = 0
    chunk_size: Annotated[int, Meta(ge=1)]
    sinks: First
    normalise: bool
    instruction: str
    instruction_part: str
    suffix: str
    skip: First

    @property
    def weighs_hidden(self) -> bool:
        """Whether weights are normalised."""
        return self.normalise

    def replays(self, prompt: Sequence[int], encode: Callable[[str], Sequence[int]] | None) -> Sequence[Replay]:
        """One for each chunk."""
        if encode is None:
            raise ConfigError(
                "method=kvzip asks in words for a repetition of the context, and there is no tokenizer: use a model "
                "with one"
            )
        suffix, found = encode(self.suffix), []
        for start in range(min(self.skip, len(prompt)), len(prompt), self.chunk_size):
            chunk = prompt[start : start + self.chunk_size]
            asked = [*encode(self.instruction)]
            if start > self.skip:
                asked = [*encode(self.instruction_part), *prompt[start - min(_OVERLAP, self.chunk_size) : start]]
            found.append(Replay((*asked, *suffix, *chunk), start, start + len(chunk)))
        return found

    def read(self, layer: LayerState, replay: Replay, replayed: Replayed) -> Tensor:
        """Largest weights [kv_heads, chunk] over the query heads of a group and the tokens of the replay."""
        sinks, chunk = min(self.sinks, replay.start), replay.stop - replay.start
        seen = torch.cat(
            [layer.keys[:, :sinks], layer.keys[:, replay.start : replay.stop], replayed.keys], dim=1
        )  # [kv_heads, sinks + chunk + tokens, head_dim]
        heads, tokens, _ = replayed.queries.shape
        copies = heads // len(seen)
        later = torch.ones(tokens, tokens, dtype=torch.bool, device=seen.device).triu(1)
        scores = []
        for kv_head, keys in enumerate(seen):
            group = slice(kv_head * copies, (kv_head + 1) * copies)
            softmax = layer.softmax.of(group)
            logits = softmax.capped_(replayed.queries[group] @ keys.T * layer.scaling)
            logits[:, :, sinks + chunk :].masked_fill_(later, torch.finfo(logits.dtype).min)
            weights = softmax.weights(logits)[:, :, sinks : sinks + chunk].to(layer.score_dtype)
            if replayed.hidden_norms is not None and self.normalise:
                values = layer.values[kv_head, replay.start : replay.stop]
                projected = (values @ layer.output_projection[group]).to(layer.score_dtype).norm(dim=-1)
                weights = weights * projected[:, None] / replayed.hidden_norms.to(layer.score_dtype)[:, None]
            scores.append(weights.amax((0, 1)))
        return torch.stack(scores)

    def smooth(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Force the first tokens; see ``forced``."""
        return forced(scores, first=self.sinks)


@dataclass(frozen=True)
class BestOfAll(Allocation):
    """As many entries as are among the best scores of the model, or of the layer.

    Attributes:
        layerwise: whether each layer keeps its budget, divided among its heads; if not, all heads of the model compete.
    """

    layerwise: bool

    @property
    def sees(self) -> Literal["layers"]:
        """All layers, as their scores come when all have been read."""
        return "layers"

    def total(self, budget: int, shape: Shape) -> int:
        """What is not dropped; and one entry more for each head, none of which can be empty."""
        heads = shape.cache_heads
        of_layer = heads * shape.tokens - int(heads * shape.tokens * (1 - shape.share))
        whole = shape.layers * heads * shape.tokens
        return min(whole, shape.layers * (of_layer + heads))

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Counts]:
        """Numbers of the best scores in each head."""
        scores = torch.stack([layer.scores for layer in seen])  # [layers, heads, tokens]
        groups = scores if self.layerwise else scores.flatten(0, 1)[None]
        counts = [
            shares_of_best(group, group.numel() - int(group.numel() * (1 - shape.share))).clamp(min=1)
            for group in groups
        ]
        return torch.stack(counts).view(scores.shape[:2]).tolist()


@dataclass(frozen=True)
class KVzip(Method):
    """Keep the tokens that the model attends to most when it repeats the context.

    Attributes:
        layerwise: whether each layer keeps its budget; if not, all heads of the model compete.
        chunk_size: tokens that are repeated at a time.
        sinks: first tokens that are always kept.
        normalise: KVzip+; see ``RepeatedContext``.
        instruction: text that asks for the first chunk.
        instruction_part: text that asks for a later one.
        suffix: text between the instruction and the repeated chunk.
        skip: number of first tokens that belong to a chat template.
    """

    layerwise: bool
    chunk_size: Annotated[int, Meta(ge=1)]
    sinks: First
    normalise: bool
    instruction: str
    instruction_part: str
    suffix: str
    skip: First

    @property
    def scorer(self) -> RepeatedContext:
        """The largest weights while the context is repeated."""
        texts = (self.instruction, self.instruction_part, self.suffix)
        return RepeatedContext(self.chunk_size, self.sinks, self.normalise, *texts, self.skip)

    @property
    def allocation(self) -> BestOfAll:
        """The best scores of the model, or of each layer."""
        return BestOfAll(self.layerwise)
