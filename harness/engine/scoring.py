"""How probable given continuations are, read through what was kept of their context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.cache import KVCache
from harness.engine.finite import all_finite, not_finite
from harness.engine.forward import run_over
from harness.engine.layer_forms import layer_forms
from harness.engine.memory import is_out_of_memory, reason_of, release
from harness.engine.rows import Row
from harness.errors import EngineError

if TYPE_CHECKING:
    from harness.engine.engine import Engine

_LOGITS = 2**27
"""Numbers of logits that one forward gives, at most: 0.5 GB. One row may always."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Scored:
    """A continuation as the model finds it.

    Attributes:
        log_probability: the sum of the natural logarithms of its tokens' probabilities; NaN with an error.
        is_greedy: whether each of its tokens is the most probable one.
        error: why there is no number; None if there is one.
    """

    log_probability: float
    is_greedy: bool
    error: str | None = None


@torch.inference_mode()
def score(
    engine: Engine, rows: Sequence[Row], targets: Sequence[Sequence[Tokens]], width: int
) -> list[tuple[Scored, ...]]:
    """Score the tokens that come after the last tokens of prompts.

    The question of each row runs through its entries in one step; a token of it sees the entries and the question up
    to itself, and predicts the token that comes next.

    Args:
        engine: the engine.
        rows: 1 or more; their entries are taken over.
        targets: per row, token ids that are scored each by itself; as many as its question has tokens, or one more,
            whose first one is scored with ``Row.logits``.
        width: largest number of rows that run together; halved whenever memory runs out.

    Returns:
        Per row, one result for each of its targets.

    Raises:
        EngineError: one row does not fit into memory.
        ModelError: a layer did not come through the engine.
    """
    results: dict[int, tuple[Scored, ...]] = {}
    # Rows that keep equally many entries become neighbours, as in a step.
    left = sorted(
        range(len(rows)),
        key=lambda index: (len(rows[index].question), rows[index].kind),
    )
    while left:
        tokens = len(rows[left[0]].question)
        fitting = max(1, min(width, _LOGITS // (max(1, tokens) * engine.model.config.vocab_size)))
        some = [index for index in left[:fitting] if len(rows[index].question) == tokens]
        reason = None
        try:
            # Copies of the lists, which the cache empties: what does not fit together runs again in parts.
            logits = _predictions(engine, [replace(rows[index], layers=list(rows[index].layers)) for index in some])
            for index, predicted in zip(some, logits, strict=True):
                results[index] = tuple(_scored(predicted, target) for target in targets[index])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = reason_of(error)
        if reason is None:
            left = left[len(some) :]
            continue
        # Outside the handler, where the tensors of the failed attempt are freed.
        logits = []
        release()
        if len(some) == 1:
            raise EngineError(
                f"a continuation of {tokens} tokens does not fit into memory behind its context ({reason}): use a "
                "smaller model.dtype, smaller budgets or shorter prompts"
            )
        width = len(some) // 2
    for row in rows:
        row.layers.clear()
    return [results[index] for index in range(len(rows))]


def _predictions(engine: Engine, rows: Sequence[Row]) -> list[Tensor]:
    """Per row, float32 logits [1 + question, vocabulary]: of its prompt's end, then after each token of its question.

    Args:
        engine: the engine.
        rows: with equally long questions; their lists of entries are emptied.
    """
    device, tokens = engine.device, len(rows[0].question)
    firsts = [row.logits.to(device)[None] for row in rows]
    if not tokens:
        return firsts
    forms = layer_forms(engine.model)
    cache = KVCache(forms, engine.kernels)
    cache.add([row.layers for row in rows], spare=0, question=tokens)
    starts = torch.tensor([row.prompt_tokens - tokens for row in rows], device=device)
    logits = run_over(
        engine.model,
        engine.name,
        forms,
        torch.tensor([row.question for row in rows], device=device),
        starts[:, None] + torch.arange(tokens, device=device),
        cache.attend_question,
        "a continuation",
        tokens,
    )
    return [torch.cat(parts) for parts in zip(firsts, logits, strict=True)]


def _scored(predicted: Tensor, target: Tokens) -> Scored:
    """Score a target with the last of these logits, [tokens, vocabulary]."""
    used = predicted[-len(target) :]
    if bad := [place for place, good in enumerate(all_finite(used), 1) if not good]:
        return Scored(float("nan"), False, not_finite(bad[0], None, predicted.dtype))
    ids = torch.tensor(target, device=used.device)
    log_probabilities = used.log_softmax(-1).gather(1, ids[:, None])
    return Scored(float(log_probabilities.sum()), bool((used.argmax(-1) == ids).all()))
