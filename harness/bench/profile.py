"""Where the time of a grid goes: exclusive seconds of its parts, by timers around our own functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from harness.bench.clock import seconds
from harness.bench.subject import Subject, decoded, prefilled
from harness.compression.grid import Variant
from harness.compression.scorers import ColumnReader
from harness.compression.selection import Order
from harness.engine import prefill as prefilling
from harness.engine import prefill_attention
from harness.engine.cache import KVCache
from harness.engine.engine import Engine

Seconds = dict[str, float]

PREFILL, DECODE = "prefill: projections, MLP, head", "decode: projections, MLP, head"
_PARTS: Sequence[tuple[Any, str, str]] = (
    (prefill_attention, "causal_attention", "prefill: attention"),
    (ColumnReader, "read", "prefill: H2O's column sums"),
    (prefill_attention, "order_of", "prefill: window scores, pooling"),
    (Order, "__init__", "prefill: sort"),
    (prefill_attention.PrefillAttention, "_take", "prefill: kept entries gathered"),
    (prefilling, "_hashes", "prefill: kept indices hashed"),
    (KVCache, "add", "decode: entries moved into the pool"),
    (KVCache, "attend", "decode: attention"),
)


class Stopwatch:
    """Exclusive seconds by part: what a part calls that is a part itself counts there and not here."""

    def __init__(self) -> None:
        self.found: Seconds = {}
        self._inside: list[float] = []

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, timed."""

        def timed(*words: Any, **keywords: Any) -> Any:
            self._inside.append(0.0)
            start = seconds()
            try:
                return work(*words, **keywords)
            finally:
                whole = seconds() - start
                self.found[part] = self.found.get(part, 0.0) + whole - self._inside.pop()
                if self._inside:
                    self._inside[-1] += whole

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time every part while the body runs."""
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in _PARTS]
        try:
            for owner, name, part in _PARTS:
                setattr(owner, name, self.around(part, getattr(owner, name)))
            yield
        finally:
            for owner, name, work in before:
                setattr(owner, name, work)


def grid_profile(subject: Subject, engine: Engine, tokens: int, variants: Sequence[Variant]) -> Seconds:
    """One prompt with these variants, prefilled once and decoded together.

    Args:
        subject: the grid.
        engine: the loaded subject.
        tokens: of the prompt.
        variants: those of the subject that share the work.
    """
    watch = Stopwatch()
    with watch.watching():
        rows = watch.around(PREFILL, prefilled)(subject, engine, subject.prompt(tokens), variants)
        watch.around(DECODE, decoded)(subject, engine, list({id(row): row for row in rows.values()}.values()))
    return watch.found


def sdpa_seconds(subject: Subject, engine: Engine, tokens: int) -> float:
    """A plain prefill by transformers' SDPA, nothing kept but its cache: the floor of ours."""
    before = engine.model.config._attn_implementation
    engine.model.set_attn_implementation("sdpa")
    try:
        start = seconds()
        with torch.inference_mode():
            engine.model(torch.tensor([subject.prompt(tokens)], device=engine.device), use_cache=True, logits_to_keep=1)
        return seconds() - start
    finally:
        engine.model.set_attn_implementation(before)


def decode_floor(subject: Subject, engine: Engine, kept_bytes: int, rows: int) -> Seconds:
    """What decoding cannot be faster than on this machine, whose rates are measured here.

    Args:
        subject: the grid.
        engine: the loaded subject.
        kept_bytes: bytes of the kept entries of all rows.
        rows: decoded together.

    Returns:
        Seconds by what bounds them: ``products`` (two operations per weight, row and step, at the rate of one large
            product) and
        ``reading`` (every weight and every kept entry once per step, at the rate of copying).
    """
    steps = subject.new_tokens - 1
    embeddings = engine.model.get_input_embeddings()
    weights = sum(each.numel() for each in engine.model.parameters()) - sum(
        each.numel() for each in embeddings.parameters()
    )
    size = next(engine.model.parameters()).element_size()
    one = torch.randn(1024, 1024, device=engine.device, dtype=engine.model.dtype)
    product = _fastest(lambda: one @ one)
    many = torch.zeros(16 * 2**20, device=engine.device, dtype=torch.float32)
    other = many.clone()
    copy = _fastest(lambda: other.copy_(many))
    return {
        "products": steps * rows * 2 * weights / (2 * 1024**3 / product),
        "reading": steps * (weights * size + kept_bytes) / (2 * many.nbytes / copy),
    }


def _fastest(work: Callable[[], object], times: int = 7) -> float:
    found = []
    for _ in range(times):
        start = seconds()
        work()
        found.append(seconds() - start)
    return min(found)
