"""A profile of a grid: exclusive seconds of its parts, by timers around the project's own functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from harness.bench.clock import seconds
from harness.bench.subject import Subject, by_sdpa, decoded, prefilled
from harness.compression.grid import Variant
from harness.compression.scorers import ColumnAccumulator
from harness.compression.selection import Order
from harness.engine import prefill as prefilling
from harness.engine import prefill_attention, seen_layer
from harness.engine.cache import KVCache
from harness.engine.engine import Engine
from harness.kernels.products import times

Seconds = dict[str, float]

PREFILL, DECODE = "prefill: projections, MLP, head", "decode: projections, MLP, head"
_PARTS: Sequence[tuple[Any, str, str]] = (
    (prefill_attention, "causal_attention", "prefill: attention"),
    (ColumnAccumulator, "read", "prefill: H2O's column sums"),
    (seen_layer, "order_of", "prefill: window scores, pooling"),
    (Order, "__init__", "prefill: sort"),
    (seen_layer.SeenLayer, "keep", "prefill: kept entries gathered"),
    (prefilling, "_hashes", "prefill: kept indices hashed"),
    (KVCache, "add", "decode: entries moved into the pool"),
    (KVCache, "attend", "decode: attention"),
)


class Stopwatch:
    """Measures exclusive seconds by part: a part that another part calls counts for itself alone.

    Attributes:
        exclusive: seconds of each part.
    """

    def __init__(self) -> None:
        """Start with no seconds."""
        self.exclusive: Seconds = {}
        self._inside: list[float] = []

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does ``work`` and adds its time to a part."""

        def timed(*words: Any, **keywords: Any) -> Any:
            self._inside.append(0.0)
            start = seconds()
            try:
                return work(*words, **keywords)
            finally:
                whole = seconds() - start
                self.exclusive[part] = self.exclusive.get(part, 0.0) + whole - self._inside.pop()
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
    """Profile one prompt with some variants, prefilled once and decoded together.

    Args:
        subject: the model and its grid.
        engine: the loaded subject.
        tokens: length of the prompt.
        variants: the variants of the subject that share the work.

    Returns:
        Seconds by part.
    """
    watch = Stopwatch()
    with watch.watching():
        rows = watch.around(PREFILL, prefilled)(subject, engine, subject.prompt(tokens), variants)
        watch.around(DECODE, decoded)(subject, engine, list({id(row): row for row in rows.values()}.values()))
    return watch.exclusive


def sdpa_seconds(subject: Subject, engine: Engine, tokens: int) -> float:
    """Seconds of a prefill by SDPA and our linear layers, with transformers' own cache: a lower bound for ours."""
    with by_sdpa(engine), torch.inference_mode():
        ids = torch.tensor([subject.prompt(tokens)], device=engine.device)
        start = seconds()
        engine.model(ids, use_cache=True, logits_to_keep=1)
        return seconds() - start


def decode_floor(subject: Subject, engine: Engine, kept_bytes: int, rows: int) -> Seconds:
    """Lower bounds of the seconds of decoding on this machine, whose rates are measured here.

    Args:
        subject: the model and its grid.
        engine: the loaded subject.
        kept_bytes: bytes of the kept entries of all rows, once where rows share them.
        rows: number of rows decoded together.

    Returns:
        Two bounds in seconds: ``products``, for two operations per weight, row and step at the rate of one large
        product; and ``reading``, for every weight and every kept entry once per step at the rate of copying.
    """
    steps = subject.new_tokens - 1
    embeddings = engine.model.get_input_embeddings()
    weights = sum(each.numel() for each in engine.model.parameters()) - sum(
        each.numel() for each in embeddings.parameters()
    )
    size = next(engine.model.parameters()).element_size()
    square = torch.randn(1024, 1024, device=engine.device, dtype=engine.model.dtype)
    product = _fastest(lambda: times(square, square, kernels=engine.kernels))
    large = torch.zeros(16 * 2**20, device=engine.device, dtype=torch.float32)
    target = large.clone()
    copy = _fastest(lambda: target.copy_(large))
    return {
        "products": steps * rows * 2 * weights / (2 * 1024**3 / product),
        "reading": steps * (weights * size + kept_bytes) / (2 * large.nbytes / copy),
    }


def _fastest(work: Callable[[], object], repetitions: int = 7) -> float:
    """Seconds of the fastest of some repetitions."""
    durations = []
    for _ in range(repetitions):
        start = seconds()
        work()
        durations.append(seconds() - start)
    return min(durations)
