"""What methods keep whose scores come from replays. Each prompt is replayed once for all tests of equal scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from harness.compression.budget import Budget
from harness.compression.method import LayerState, Method, Scorer
from harness.engine.keeping import Keeping
from harness.engine.replay import replayed_scores
from tests.methods.golden import kvpress
from tests.methods.golden.kvpress import SELECTION, Bits, Case, kept_of, plan_of, shape_of

Encode = Callable[[str], Sequence[int]]


@lru_cache
@torch.inference_mode()
def _states(name: str, prompt: tuple[int, ...]) -> tuple[LayerState, ...]:
    shared = prompt == kvpress.prompt(len(prompt))
    return kvpress.states(name, len(prompt)) if shared else kvpress.states_of(name, prompt)


@lru_cache
@torch.inference_mode()
def scores(name: str, prompt: tuple[int, ...], scorer: Scorer, encode: Encode | None) -> list[Tensor]:
    """The scores of each layer, [kv heads, tokens]."""
    return replayed_scores(kvpress.model(name), name, prompt, _states(name, prompt), {}, [scorer], encode)[scorer]


@torch.inference_mode()
def kept(case: Case, method: Method, prompt: tuple[int, ...], encode: Encode | None = None) -> Bits:
    """What a method keeps of a prompt at the compression ratio of a case, [layers, kv heads, tokens]."""
    share = Budget("share", share=Fraction(1) - Fraction(case.level))
    plan = plan_of(method, share, case.model, case.tokens)
    keeping = Keeping([plan], SELECTION)
    for state in _states(case.model, prompt):
        keeping.take(state, {})
    (scorer,) = keeping.replaying
    keeping.score(scorer, scores(case.model, prompt, scorer, encode))
    keeping.end()
    heads = shape_of(case.model, case.tokens).cache_heads
    return np.stack([kept_of(indices, heads, case.tokens) for indices in keeping.growing[plan].indices])
