"""Rows decoded again alone: does rounding in a wide batch change what is generated?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.decode import Generated, Row, decode
from harness.kernels import Kernels
from harness.results import Audit, Cell

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_audited(example_id: str, cell: Cell, share: float) -> bool:
    """Whether a row is one of the share that is decoded again: by a hash, so that it is the same one in every run."""
    digest = hashlib.sha256(f"{example_id}\n{cell.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def audit(
    model: PreTrainedModel,
    name: str,
    row: Row,
    wide: Generated,
    stop_ids: frozenset[int],
    max_new_tokens: int,
    min_new_tokens: int,
    kernels: Kernels = "torch",
) -> Audit:
    """Decode a row alone and hold it against what it gave among others.

    Args:
        model, name, stop_ids, max_new_tokens, min_new_tokens, kernels: as in ``decode``.
        row: the row; its entries are taken over.
        wide: its outcome in the batch.
    """
    margins: list[float] = []
    stops = torch.tensor(sorted(stop_ids), dtype=torch.int64, device=model.device)

    def observe(_: Sequence[int], logits: Tensor) -> None:
        allowed = logits[0].index_fill(0, stops, -torch.inf) if len(margins) < min_new_tokens else logits[0]
        first, second = allowed.topk(2).values.tolist()
        margins.append(first - second)

    (alone,) = decode(model, name, [row], stop_ids, max_new_tokens, min_new_tokens, observe, kernels)
    if alone.tokens == wide.tokens:
        return Audit(True, None, None)
    pairs = zip(alone.tokens, wide.tokens, strict=False)
    place = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(alone.tokens), len(wide.tokens)))
    return Audit(False, place, margins[place] if place < len(margins) else None)
