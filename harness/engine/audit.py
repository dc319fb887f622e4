"""Rows decoded again alone: does rounding in a wide batch change what is generated?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from harness.engine.decode import Generated, Limits, Row
from harness.engine.engine import Engine
from harness.results import Audit, Cell

if TYPE_CHECKING:
    pass


def is_audited(example_id: str, cell: Cell, share: float) -> bool:
    """Whether a row is one of the share that is decoded again: by a hash, so that it is the same one in every run."""
    digest = hashlib.sha256(f"{example_id}\n{cell.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def audit(engine: Engine, row: Row, wide: Generated, limits: Limits) -> Audit:
    """Decode a row alone and hold it against what it gave among others.

    Args:
        engine: decodes it.
        row: the row; its entries are taken over.
        wide: its outcome in the batch.
        limits: when a row ends.
    """
    margins: list[float] = []
    stops = torch.tensor(sorted(limits.stop_ids), dtype=torch.int64, device=engine.model.device)

    def observe(_: Sequence[int], logits: Tensor) -> None:
        early = len(margins) < limits.min_new_tokens
        allowed = logits[0].index_fill(0, stops, -torch.inf) if early else logits[0]
        first, second = allowed.topk(2).values.tolist()
        margins.append(first - second)

    (alone,) = engine.decode([row], limits, observe)
    if alone.tokens == wide.tokens:
        return Audit(True, None, None)
    pairs = enumerate(zip(alone.tokens, wide.tokens, strict=False))
    shorter = min(len(alone.tokens), len(wide.tokens))
    first_divergence = next((step for step, (one, other) in pairs if one != other), shorter)
    margin = margins[first_divergence] if first_divergence < len(margins) else None
    return Audit(False, first_divergence, margin)
