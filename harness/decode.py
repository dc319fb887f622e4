"""The wide greedy loop: all variants of several prompts, one token each per forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness import ranks
from harness.attention import ENGINE, check_layers
from harness.finite import all_finite, first_broken, not_finite
from harness.pool import KVPool, LayerKV

Observer = Callable[[int, Sequence[int], Tensor], None]


@dataclass(frozen=True)
class Row:
    """One sequence to decode.

    Attributes:
        prompt_tokens: length of its prompt; the first new token stands at this position whatever was dropped.
        logits: of its first new token, [vocabulary], float32.
        layers: its kept entries; taken over by decoding.
        broken: where the prefill's numbers stopped being finite, if they did and that is known.
    """

    prompt_tokens: int
    logits: Tensor
    layers: list[LayerKV]
    broken: str | None = None


@dataclass(frozen=True)
class Generated:
    """A finished row.

    Attributes:
        tokens: new ids, the stop token included.
        error: why the row ended without a result, or None.
    """

    tokens: tuple[int, ...]
    error: str | None = None


class _StepEngine:
    def __init__(self, pool: KVPool) -> None:
        self.seen: list[int] = []
        self._pool = pool

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        self.seen.append(layer)
        return self._pool.attend(layer, queries, keys, values, scaling)


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    name: str,
    rows: Sequence[Row],
    stop_ids: frozenset[int],
    max_new_tokens: int,
    min_new_tokens: int = 0,
    observe: Observer | None = None,
) -> list[Generated]:
    """Decode all rows greedily until each has met a stop token or ``max_new_tokens``.

    Args:
        model: with ``attention.install`` applied.
        name: the model's name, for errors.
        rows: 1 or more; their entries are taken over.
        stop_ids: a row ends with the first of these.
        max_new_tokens: 1 or more.
        min_new_tokens: a stop token is impossible before this many tokens.
        observe: called with (step, positions of the rows still in the batch, their float32 logits [rows, vocabulary]).

    Returns:
        One outcome per row, in order. A row whose logits are not finite ends with an error.

    Raises:
        ModelError: a layer did not come through the engine.
    """
    layers = model.config.num_hidden_layers
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=model.device)
    tokens: list[list[int]] = [[] for _ in rows]
    errors: list[str | None] = [None for _ in rows]
    # Rows that keep equally many entries become neighbours, which the pool attends to at once.
    batch = sorted(range(len(rows)), key=lambda row: [layer.keys.shape[:2] for layer in rows[row].layers])
    pool: KVPool | None = None
    positions = torch.tensor([rows[row].prompt_tokens for row in batch], device=model.device)
    logits = torch.stack([rows[row].logits.to(model.device) for row in batch])
    finite = all_finite(logits)
    broken: Sequence[str | None] = [rows[row].broken for row in batch]
    finished: set[int] = set()
    for step in range(max_new_tokens):
        if observe is not None:
            observe(step, batch, logits)
        if step < min_new_tokens:
            logits = logits.index_fill(1, stops, -torch.inf)
        chosen = ranks.from_first(logits.argmax(-1))
        for row, token, good, where in zip(batch, chosen.tolist(), finite, broken, strict=True):
            if row in finished:
                continue
            if not good:
                errors[row] = not_finite(step + 1, where, model.dtype)
                finished.add(row)
                continue
            tokens[row].append(token)
            if token in stop_ids:
                finished.add(row)
        if step + 1 == max_new_tokens or len(finished) == len(rows):
            break
        if pool is None:
            pool = KVPool([rows[row].layers for row in batch], spare=max_new_tokens - 1)
        alive = [place for place, row in enumerate(batch) if row not in finished]
        if 2 * len(alive) <= len(batch):
            pool.keep(alive)
            batch = [batch[place] for place in alive]
            chosen, positions = chosen[alive], positions[alive]
        engine = _StepEngine(pool)
        forward = partial(
            model,
            chosen[:, None],
            position_ids=(positions + step)[:, None],
            use_cache=False,
            past_key_values=None,
            logits_to_keep=1,
            **{ENGINE: engine},
        )
        logits = forward().logits[:, -1].float()
        check_layers(engine.seen, layers, name, f"decoding step {step + 1}")
        finite, broken = all_finite(logits), [None for _ in batch]
        if not all(good or row in finished for row, good in zip(batch, finite, strict=True)):
            broken = first_broken(model, forward, len(batch))
        pool.step += 1
    return [Generated(tuple(new), error) for new, error in zip(tokens, errors, strict=True)]
