"""CAOTE: the tokens without which the attention output would change most.

Claim: the change of the output when one token is dropped has a closed form, by its weight and its value (Goel et al.,
    arXiv:2504.14051).
Source: the paper's formula, on SnapKV's weights without pooling.
Differs:
    - from the paper: scored once, over the prompt; the paper drops tokens block by block.
    - ``output: mean`` is the paper's FastCAOTE, which takes the mean of all values for the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from harness.compression.attention_weights import attention_rows
from harness.compression.method import LayerState, Method, Scorer
from harness.compression.score_parts import for_heads
from harness.compression.scorers import Window

Output = Literal["exact", "mean"]


@dataclass(frozen=True)
class OutputError(Scorer):
    """Error of the attention output when one token is dropped and the weights of the others are rescaled.

    The weights are those of the last ``window`` queries, averaged, over all tokens.

    Attributes:
        window: number of trailing queries that vote, 1 or more; these tokens are always kept.
        output: ``exact`` for the output of these weights, ``mean`` for the mean of all values.

    Raises:
        ConfigError: a knob out of range.
    """

    window: Window
    output: Output

    def score(self, layer: LayerState) -> Tensor:
        """Errors [heads, tokens - window] in float32, 0 or more."""
        heads, tokens, _ = layer.queries.shape
        queries, keys = layer.queries[:, tokens - self.window :], layer.keys.to(layer.score_dtype)
        rows = attention_rows(queries.to(layer.score_dtype), keys, layer.softmax, block_bytes=2**62)
        ((_, _, attention),) = rows
        weights = attention.float().mean(dim=1)  # [heads, tokens], each row's sum is 1
        values = for_heads(layer.values.float(), heads)
        output = weights[:, None] @ values if self.output == "exact" else values.mean(dim=1, keepdim=True)
        shares = weights / (1 - weights).clamp(min=torch.finfo(weights.dtype).eps)
        errors: Tensor = torch.linalg.vector_norm(output - values, dim=-1) * shares
        return errors[:, : tokens - self.window]


@dataclass(frozen=True)
class CAOTE(Method):
    """Keep the tokens without which the attention output would change most, and the last ones.

    Attributes:
        window: trailing queries that vote; their tokens are always kept.
        output: ``exact`` or ``mean``.
    """

    window: Window
    output: Output

    @property
    def scorer(self) -> OutputError:
        """Error of the attention output."""
        return OutputError(self.window, self.output)
