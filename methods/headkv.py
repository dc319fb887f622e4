"""HeadKV: SnapKV's scorer, with more entries for heads that retrieve, or retrieve and reason, by a file of head scores.

Claim: few heads find what an answer needs, so they should keep more of the prompt than others (Fu et al.,
    arXiv:2410.19258).
Source: FYYFU/HeadKV at 0862a09; ``window_on_top: true`` does as Zefan-Cai/KVCache-Factory at c97f9d7.
Differs:
    - from the authors' text: a higher ``beta`` makes the shared pool smaller, as in their code.
    - from their code: scores are placed by their keys, "layer-head", where it takes them in the file's order; in files
      in numeric order, which theirs are, both are the same.
    - with ``granularity=kv_head`` a kv head keeps the rounded mean of its query heads, as in KVCache-Factory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

import numpy as np
from msgspec import Meta

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.method import Method
from harness.compression.method_files import of_cache, read_text, refusal
from harness.compression.scorers import Kernel, Pooling, Window, WindowAttention
from harness.values import Refusal

Shares = tuple[tuple[float, ...], ...]
Beta = Annotated[
    float,
    Meta(ge=1),
    Refusal("is not a number of 1 or more", "the authors tried 1.005 to 10; KVCache-Factory has 1.01"),
]
Temperature = Annotated[float, Meta(gt=0), Refusal("is not a number above 0", "the authors use temperature=1")]

_WHAT = 'scores of heads: a JSON object of "layer-head": [scores] on its first line'


@dataclass(frozen=True)
class HeadScores(Allocation):
    """A common number for every head, and a pool that heads share by their scores.

    Attributes:
        file: see ``HeadKV``.
        beta: 1 / beta of all candidates' entries are in the pool.
        temperature: power of the shares.
        window_on_top: whether the window comes on top of the budget.
        label: the method's label, for errors.
    """

    file: str
    beta: Beta
    temperature: Temperature
    window_on_top: bool
    label: str

    def total(self, budget: int, shape: Shape) -> int:
        """The sum of the numbers."""
        return sum(min(count, shape.tokens) for layer in self.counts(budget, shape, ()) for count in layer)

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        """A number for each head of the cache; the whole prompt if it is shorter than the budget."""
        shares = head_shares(self.file, self.temperature, self.label)
        group = of_cache(shares, shape, self.file, "query")
        if budget > shape.tokens:
            return [[shape.tokens] * shape.cache_heads] * shape.layers
        base = budget if self.window_on_top else budget - shape.window
        shared = base // self.beta
        numbers = np.rint(np.array(shares) * (shared * shape.layers * shape.heads) + (base - shared)).astype(np.int32)
        means = np.rint(numbers.reshape(shape.layers, -1, group).mean(-1, dtype=np.float32)).astype(np.int32)
        counts: list[list[int]] = (means + shape.window).tolist()
        return counts


@dataclass(frozen=True)
class HeadKV(Method):
    """Keep what SnapKV scores highest, with more entries in heads of high scores.

    Attributes:
        file: JSON, one line: an object of "layer-head" to a list of scores, one per trial. Null is refused.
        window: trailing queries that vote; their tokens are always kept.
        kernel: width of the pooling over neighbouring positions.
        pooling: ``maxpool`` or ``avgpool``.
        beta: 1 / beta of the entries are in the pool that heads share by their scores.
        temperature: power of the shares; above 1 they are less even.
        window_on_top: whether every head keeps the window on top of what the budget gives.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """

    file: str | None
    window: Window
    kernel: Kernel
    pooling: Pooling
    beta: Beta
    temperature: Temperature
    window_on_top: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        head_shares(self.file, self.temperature, self.label)

    @property
    def scorer(self) -> WindowAttention:
        """SnapKV's: attention received from the window, pooled over neighbouring positions."""
        return WindowAttention(self.window, self.kernel, self.pooling)

    @property
    def allocation(self) -> HeadScores:
        """Numbers by the scores of heads."""
        assert self.file is not None
        return HeadScores(self.file, self.beta, self.temperature, self.window_on_top, self.label)


@lru_cache
def head_shares(file: str | None, temperature: float, label: str) -> Shares:
    """Shares of heads, one row per layer; all together are 1.

    Raises:
        ConfigError: the file cannot be read or has another form.
    """
    first, *_ = read_text(file, label, _WHAT).splitlines() or [""]
    try:
        scores = json.loads(first)
    except ValueError as error:
        raise refusal(file, label, "is no JSON in its first line", _WHAT) from error
    if not isinstance(scores, Mapping) or not scores:
        raise refusal(file, label, "holds no JSON object", _WHAT)
    means: dict[tuple[int, int], float] = {}
    for name, trials in scores.items():
        numbers = isinstance(trials, list) and trials and all(type(trial) in (int, float) for trial in trials)
        if not re.fullmatch(r"\d{1,4}-\d{1,4}", name) or not numbers:
            raise refusal(file, label, f"has {json.dumps({name: trials})[:60]}", _WHAT)
        layer, head = map(int, name.split("-"))
        means[layer, head] = float(np.mean(trials))
    layers, heads = (1 + max(place[axis] for place in means) for axis in (0, 1))
    if len(means) != layers * heads:
        raise refusal(file, label, f"has {len(means)} of {layers} x {heads} heads", _WHAT)
    shares = np.array([[means[layer, head] for head in range(heads)] for layer in range(layers)])
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise refusal(file, label, "has means that are below 0, not finite or all 0", _WHAT)
    shares = (shares / shares.sum()) ** temperature
    return tuple(map(tuple, (shares / shares.sum()).tolist()))
