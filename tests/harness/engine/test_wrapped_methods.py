"""Wrappers in the engine: heads that keep different numbers, in one prefill and one wide decoding with others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compression.allocation import Shape
from harness.compression.budget import OWN, Budget
from harness.compression.grid import Plan, Variant
from harness.compression.method import Method
from harness.compression.selection import Selection
from harness.engine.prefill import Kept
from harness.results import Cell as Name
from harness.results import by_head
from methods.ada_pyramidkv import AdaPyramidKV
from methods.adakv import AdaKV
from methods.adakv_kvpress import AdaKVKvpress
from methods.block import Block
from methods.chunk import Chunk
from methods.chunkkv import ChunkKV
from methods.criticaladakv import CriticalAdaKV
from methods.criticalkv import CriticalKV
from methods.dms import DMS
from methods.entropy_chunkkv import EntropyChunkKV
from methods.h2o import H2O
from methods.keydiff import KeyDiff
from methods.knorm import Knorm
from methods.pyramidkv import PyramidKV
from methods.snapkv import SnapKV
from tests.harness.engine.test_prefill_and_decode import EXACT
from tests.harness.tiny import HEADS, Cell, decode_together, methods, prompt_of, tiny

WINDOW = 4
LAYERS = 3


def wrappers() -> dict[str, Method]:
    """Every wrapper, around scorers with a window and without, of attention and of keys."""
    snapkv, h2o = SnapKV("snapkv", WINDOW, 5, "maxpool"), H2O("h2o", WINDOW, True)
    adakv = AdaKV("adakv", snapkv, 0.2, True, 0)
    pyramidkv = PyramidKV("pyramidkv", WINDOW, 5, "maxpool", 20, "reference")
    return {
        "adakv": adakv,
        "adakv-h2o": AdaKV("adakv", h2o, 0.0, False, 1),
        "adakv-knorm": AdaKV("adakv", Knorm("knorm"), 0.5, False, 0),
        "adakv_kvpress": AdaKVKvpress("adakv_kvpress", snapkv, 0.2),
        "adakv_kvpress-knorm": AdaKVKvpress("adakv_kvpress", Knorm("knorm"), 0.0),
        "ada_pyramidkv": AdaPyramidKV("ada_pyramidkv", snapkv, 0.2, True, 0, 20),
        "criticalkv": CriticalKV("criticalkv", snapkv, 0.5, 1e-4),
        "criticalkv-adakv": CriticalKV("criticalkv", adakv, 0.5, 1e-4),
        "criticalkv-pyramidkv": CriticalKV("criticalkv", pyramidkv, 0.0, 1e-4),
        "criticaladakv": CriticalAdaKV("criticaladakv", snapkv, 0.2, 0.5, 1e-4),
        "criticaladakv-keydiff": CriticalAdaKV("criticaladakv", KeyDiff("keydiff"), 0.9, 0.5, 1e-4),
        "chunkkv": ChunkKV("chunkkv", snapkv, 3),
        "chunkkv-knorm": ChunkKV("chunkkv", Knorm("knorm"), 5),
        "entropy_chunkkv": EntropyChunkKV("entropy_chunkkv", h2o, 4, 2),
        "chunk": Chunk("chunk", snapkv, 7),
        "chunk-keydiff": Chunk("chunk", KeyDiff("keydiff"), 6),
        "block": Block("block", KeyDiff("keydiff"), 5),
        "dms": DMS("dms", snapkv, 0.3, WINDOW + 1),
        "dms-knorm": DMS("dms", Knorm("knorm"), -3.0, 0),
    }


@dataclass(frozen=True)
class Wrapped(Cell):
    """One variant of one prompt whose plan needs to know the model's heads."""

    kv_heads: int
    granularity: str

    @property
    def shape(self) -> Shape:
        cache_heads = HEADS if self.granularity == "query_head" else self.kv_heads
        return Shape(len(self.prompt), LAYERS, HEADS, self.kv_heads, cache_heads)

    def plan(self, layers: int, cache_heads: int = HEADS) -> Plan:
        budget = Budget(str(self.budget), tokens=self.budget) if self.method.uses_budget else OWN
        return Variant(Name(self.method.label, budget.text), self.method, budget).plan(self.shape)


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, Selection, list[Wrapped]]:
    """A number of kv heads, a selection, and wrappers of up to two prompts, with neighbours that are none."""
    kv_heads, granularity = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from(["query_head", "kv_head"]))
    selection = Selection(granularity, draw(st.sampled_from(["mean", "max"])), "stable", "float32")
    every = {**wrappers(), **{f"plain {name}": method for name, method in methods(WINDOW).items()}}
    prompts = [prompt_of(draw(st.integers(1, 48)), draw(st.integers(0, 9))) for _ in range(draw(st.integers(1, 2)))]
    cells = [
        Wrapped(prompt, every[name], draw(st.integers(WINDOW + 1, 52)), kv_heads, granularity)
        for prompt in prompts
        for name in draw(st.lists(st.sampled_from(sorted(every)), min_size=1, max_size=5))
    ]
    return kv_heads, selection, cells


@given(grid=grids(), max_new_tokens=st.integers(1, 6))
@settings(EXACT, max_examples=20)
def test_shared_prefill_and_wide_decoding_give_the_tokens_of_each_wrapper_alone(
    grid: tuple[int, Selection, list[Wrapped]], max_new_tokens: int
) -> None:
    kv_heads, selection, cells = grid
    model = tiny(kv_heads, LAYERS)
    together, logits = decode_together(model, cells, selection, max_new_tokens=max_new_tokens)
    for cell, outcome, seen in zip(cells, together, logits, strict=True):
        (alone,), (its_logits,) = decode_together(model, [cell], selection, max_new_tokens=max_new_tokens)
        assert outcome == alone and outcome.error is None
        torch.testing.assert_close(seen[: len(its_logits)], its_logits, rtol=1e-4, atol=1e-5)


@given(grid=grids())
@settings(EXACT, max_examples=20)
def test_heads_keep_together_what_the_allocation_promises(grid: tuple[int, Selection, list[Wrapped]]) -> None:
    kv_heads, selection, cells = grid

    def check(cell: Cell, kept: Kept) -> None:
        assert isinstance(cell, Wrapped)
        tokens, heads = len(cell.prompt), cell.shape.cache_heads
        stored = 0
        for layer, entries in zip(kept.layers, kept.entries, strict=True):
            each = by_head(entries) if not isinstance(entries, int) else (entries,) * heads
            assert all(1 <= count <= tokens for count in each)
            stored += sum(each) if entries != tokens else tokens * kv_heads
            assert layer.gathered().keys.numel() == (sum(each) if entries != tokens else tokens * kv_heads) * 8
            total, budget = sum(each), min(cell.budget, tokens) * heads
            match cell.method:
                case AdaKV(skip=0):
                    # Each head rounds, the floor is cut down, and a head keeps its window or one entry.
                    assert abs(total - budget) <= 2 * heads
                case AdaKVKvpress() | CriticalAdaKV() | EntropyChunkKV() | Block():
                    assert total == budget
                case ChunkKV(chunk_length=length):
                    assert len(set(each)) == 1 and abs(each[0] - budget // heads) <= 2 * length
                case Chunk(chunk_length=length):
                    assert len(set(each)) == 1 and abs(each[0] - budget // heads) <= -(-tokens // length)
                case DMS(sliding_window=window):
                    assert all(count >= min(window, tokens) for count in each)
        assert stored <= cell.plan(LAYERS).total(cell.shape)

    decode_together(tiny(kv_heads, LAYERS), cells, selection, max_new_tokens=1, check=check)
