"""The costs of computing: sums, to be added up over runs, from which the time of other runs is estimated."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct, structs

from harness.values import LARGEST, Count

_Number = Annotated[float, Meta(ge=0, le=LARGEST)]


class Costs(Struct):
    """What prefills and decoding steps cost. All fields are sums.

    Attributes:
        prompts: number of prompts prefilled.
        prompt_tokens: tokens of these prompts.
        prefill_seconds: seconds of their prefills.
        variants: number of variants, cells of a prompt, that were prefilled.
        rows: number of rows that these had; equal variants share one.
        steps: number of decoding steps.
        tokens: tokens generated in them.
        squares: squares of the number of tokens of each step.
        decode_seconds: seconds of the steps.
        products: tokens times seconds of each step.
        allowed: the most tokens that the rows that have ended could have generated.
        other_seconds: seconds that were neither a prefill's nor a step's: scoring and writing. Those of the first
            prompts are left out, which also pay for what happens once.
        others: number of prompts that these seconds are of.
    """

    prompts: Count = 0
    prompt_tokens: Count = 0
    prefill_seconds: _Number = 0.0
    variants: Count = 0
    rows: Count = 0
    steps: Count = 0
    tokens: Count = 0
    squares: _Number = 0
    decode_seconds: _Number = 0.0
    products: _Number = 0.0
    allowed: Count = 0
    other_seconds: _Number = 0.0
    others: Count = 0

    def __add__(self, other: Costs) -> Costs:
        """The costs of both."""
        return Costs(*(mine + its for mine, its in zip(structs.astuple(self), structs.astuple(other), strict=True)))

    def since(self, earlier: Costs) -> Costs:
        """What was added after ``earlier``, which a sum never falls below."""
        pairs = zip(structs.astuple(self), structs.astuple(earlier), strict=True)
        return Costs(*(max(0, now - before) for now, before in pairs))

    @property
    def prompt_length(self) -> float:
        """Tokens of a prompt on average."""
        return self.prompt_tokens / max(self.prompts, 1)

    @property
    def of_prompt_token(self) -> float:
        """Seconds that a prompt token takes."""
        return self.prefill_seconds / max(self.prompt_tokens, 1)

    @property
    def of_prompt(self) -> float:
        """Seconds of a prompt for what is neither a prefill nor a step."""
        return self.other_seconds / max(self.others, 1)

    @property
    def of_step(self) -> tuple[float, float]:
        """Seconds of a step, whatever its rows, and of each of its tokens, by least squares; none is negative.

        Where all steps were about as wide, they do not tell one from the other, and the step itself counts: weights are
        read once for all of its rows.
        """
        spread = self.steps * self.squares - self.tokens**2 + 0.02 * self.tokens**2
        of_token = max(0.0, (self.steps * self.products - self.tokens * self.decode_seconds) / max(spread, 1))
        of_step = (self.decode_seconds - of_token * self.tokens) / max(self.steps, 1)
        return (of_step, of_token) if of_step >= 0 else (0.0, self.decode_seconds / max(self.tokens, 1))

    @property
    def rows_of_variant(self) -> float:
        """Rows that a variant has, 0-1; 1 if nothing is known."""
        return self.rows / self.variants if self.variants else 1.0

    @property
    def share(self) -> float:
        """Tokens of a row in relation to the most that it may have, 0-1, estimated from rows that ended and went on."""
        return min(1.0, self.tokens / self.allowed) if self.allowed else 1.0

    @staticmethod
    def longest(length: float, rows: float, most: float) -> float:
        """Steps until the last of some rows has ended, which is estimated as if they ended by chance.

        Args:
            length: tokens of a row on average.
            rows: number of rows, 1 or more.
            most: the most tokens that a row can have.
        """
        return max(1.0, min(length * (1 + math.log(rows)), most))
