"""The audit: rows of a wide batch decoded again alone, to see whether rounding changed what was generated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.engine.engine import Engine
from harness.engine.rows import Generated, Limits, Row
from harness.results import Audit, Cell


def is_audited(example_id: str, cell: Cell, share: float) -> bool:
    """Whether a row is decoded again, which a hash decides, so that every run audits the same rows.

    Args:
        example_id: the example's id.
        cell: the cell that the row stands for.
        share: share of all rows to audit, 0-1.
    """
    digest = hashlib.sha256(f"{example_id}\n{cell.name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def audit(engine: Engine, row: Row, wide: Generated, limits: Limits) -> Audit:
    """Decode a row alone and compare it with what it generated in the batch.

    Args:
        engine: the engine that decodes it.
        row: the row; its entries are taken over.
        wide: what it generated in the batch.
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
