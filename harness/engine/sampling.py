"""Sampling: the next token drawn by chance, the same whatever else is computed beside it.

The number that decides a token is a hash of the seed, the example, the sample and the step. So a row draws the same
tokens in any batch, shard or run that goes on after a kill, and a variant that kept what another kept draws the same
answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from harness.errors import ConfigError
from harness.values import Refusal, Size, check

_Temperature = Annotated[
    float, Meta(ge=0, le=1000), Refusal("is not a number of 0 to 1000", "use 0 for greedy, or 0.6")
]
_TopP = Annotated[float, Meta(gt=0, le=1), Refusal("is not above 0 and at most 1", "use 1 for all tokens, or 0.95")]
_Seed = Annotated[int, Meta(ge=0, le=2**63 - 1), Refusal("is not a whole number of 0 or more", "use one such as 42")]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: what logits are divided by; 0 takes the best token, without chance.
        top_p: only the most probable tokens that together have this probability can be drawn, above 0 and at most 1.
        samples: number of answers drawn for each prompt and variant, which share a prefill and its kept entries.
        seed: the seed, 0 or more.

    Raises:
        ConfigError: a value cannot be used, or has no effect at temperature 0.
    """

    temperature: _Temperature
    top_p: _TopP
    samples: Size
    seed: _Seed

    def __post_init__(self) -> None:
        check(self, "sampling")
        if not self.temperature and self.samples > 1:
            raise ConfigError(
                f"sampling.samples={self.samples} would give one greedy answer {self.samples} times: set "
                "sampling.temperature, for example 0.6"
            )
        if not self.temperature and self.top_p < 1:
            raise ConfigError(
                f"sampling.top_p={self.top_p} has no effect on greedy decoding: set sampling.temperature, for example "
                "0.6"
            )

    @property
    def drawn(self) -> int:
        """Number of answers that are drawn for each prompt and variant; 0 for greedy decoding, which draws nothing."""
        return self.samples if self.temperature else 0

    def draws(self, example: str, sample: int) -> Draws:
        """The numbers that decide the tokens of one answer.

        Args:
            example: the example's id.
            sample: index of the answer, 0 first.
        """
        return Draws(float(self.temperature), float(self.top_p), f"{self.seed}\n{sample}\n{example}")


_BLOCK = 256  # tokens of a block at most
GREEDY = Sampling(0.0, 1.0, 1, 0)


@dataclass(frozen=True)
class Draws:
    """The numbers that decide the tokens of one row.

    Attributes:
        temperature: see ``Sampling``.
        top_p: see ``Sampling``.
        key: what the numbers are a hash of, besides the step.
    """

    temperature: float
    top_p: float
    key: str

    def uniform(self, step: int) -> float:
        """A number of 0 or more and below 1 for the row's token at a step, 0 first."""
        digest = hashlib.sha256(f"{step}\n{self.key}".encode()).digest()
        return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def best_tokens(logits: Tensor) -> Tensor:
    """The token with the largest logit of each row, the lowest id among equal ones.

    torch's ``argmax`` looks at one number at a time and ``amax`` at many, so a row's best block is found first, which
    is up to ten times faster.

    Args:
        logits: [rows, vocabulary].

    Returns:
        Token ids, [rows].
    """
    rows, vocabulary = logits.shape
    size = math.gcd(vocabulary, _BLOCK)
    blocks = logits.reshape(rows, -1, size)
    block = blocks.amax(-1).argmax(-1)
    best: Tensor = block * size + blocks[torch.arange(rows, device=logits.device), block].argmax(-1)
    return best


def drawn_tokens(logits: Tensor, draws: Sequence[Draws], steps: Sequence[int]) -> Tensor:
    """Draw a token for each row.

    Tokens are ordered by probability, among equal ones the lowest id first; the first whose cumulated probability
    exceeds the row's number is drawn.

    Args:
        logits: float32 [rows, vocabulary].
        draws: of each row.
        steps: number of tokens that each row has.

    Returns:
        Token ids, [rows].
    """
    numbers = [(each.temperature, each.top_p, each.uniform(step)) for each, step in zip(draws, steps, strict=True)]
    temperature, top_p, uniform = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, :, None].unbind(1)
    best, order = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    cumulated = best.cumsum(-1)
    last = (cumulated - best < top_p).sum(-1, keepdim=True) - 1  # the first token is always among them
    drawn = (cumulated <= uniform * cumulated.gather(-1, last)).sum(-1, keepdim=True)
    return order.gather(-1, torch.minimum(drawn, last)).squeeze(-1)
