"""The wrappers that kvpress has, around the scorers that its runs wrapped, against kvpress."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch

from harness.compression import blocks, chunks, gated_chunks, head_budgets, thresholds, two_stages
from harness.compression.budget import OWN, Budget
from harness.compression.method import LayerState, Method
from harness.compression.selection import order_of
from harness.compression.wrappers import Wrapper
from methods.adakv_kvpress import AdaKVKvpress
from methods.block import Block
from methods.chunk import Chunk
from methods.chunkkv import ChunkKV
from methods.criticaladakv import CriticalAdaKV
from methods.criticalkv import CriticalKV
from methods.dms import DMS
from methods.entropy_chunkkv import EntropyChunkKV
from methods.expected_attention import ExpectedAttention
from methods.keydiff import KeyDiff
from methods.knorm import Knorm
from methods.snapkv_kvpress import SnapKVKvpress
from tests.methods.golden import kvpress
from tests.methods.golden.kvpress import Case

PRESSES = (
    "AdaKVPress",
    "CriticalKVPress",
    "CriticalAdaKVPress",
    "ChunkKVPress",
    "EntropyGatedChunkKVPress",
    "ChunkPress",
    "BlockPress",
    "DMSPress",
)


def base(settings: Any) -> Method:
    """The method that a press wraps."""
    match settings["press"]:
        case "KnormPress":
            return Knorm("knorm")
        case "KeyDiffPress":
            return KeyDiff("keydiff")
        case "SnapKVPress":
            return SnapKVKvpress("snapkv_kvpress", settings["window_size"], settings["kernel_size"], "avgpool")
        case "ExpectedAttentionPress":
            vnorm, epsilon = settings.get("use_vnorm", True), float(settings.get("epsilon", 0.0))
            return ExpectedAttention("expected_attention", 4, 512, True, vnorm, epsilon)
    raise AssertionError(settings["press"])


def method_of(case: Case) -> Method:
    """The wrapper of a case."""
    press, wrapped = case.settings, base(case.settings["base"])
    match press["press"]:
        case "AdaKVPress":
            return AdaKVKvpress("m", wrapped, press["alpha_safeguard"])
        case "CriticalKVPress":
            return CriticalKV("m", wrapped, first_stage(case), press["epsilon"])
        case "CriticalAdaKVPress":
            return CriticalAdaKV("m", wrapped, press["alpha_safeguard"], press["first_stage_ratio"], press["epsilon"])
        case "ChunkKVPress":
            return ChunkKV("m", wrapped, press["chunk_length"])
        case "EntropyGatedChunkKVPress":
            return EntropyChunkKV("m", wrapped, press["chunk_length"], press["low_entropy_chunk_length"])
        case "ChunkPress":
            return Chunk("m", wrapped, press["chunk_length"])
        case "BlockPress":
            return Block("m", wrapped, press["block_size"])
        case "DMSPress":
            return DMS("m", wrapped, case.level, press["sliding_window_size"])
    raise AssertionError(press["press"])


def first_stage(case: Case) -> float:
    """The share of a whole budget that gives the number of kvpress, whose share is of tokens * (1 - ratio)."""
    ratio: float = case.settings["first_stage_ratio"]
    first = int((1 - case.level) * case.tokens * ratio)
    return ratio if int(case.budget * ratio) == first else (first + 0.5) / case.budget


def budget_of(case: Case) -> Budget:
    """The share as kvpress's double has it for what takes a share of chunks; else the number of entries."""
    match case.settings["press"]:
        case "ChunkKVPress" | "ChunkPress":
            return Budget("share", share=Fraction(1 - case.level))
        case "DMSPress":
            return OWN
    return Budget("entries", tokens=case.budget)


VARIANTS = sorted(
    name
    for name, settings in kvpress.variants("whole" if kvpress.ROOTS["whole"].is_dir() else "part").items()
    if settings["press"] in PRESSES
)


def only_near(case: Case) -> bool:
    """Whether all that differs lies within 1e-5 of one cut over all heads, which moves entries from head to head."""
    method = method_of(case)
    assert isinstance(method, Wrapper)
    plan = kvpress.plan_of(method, budget_of(case), case.model, case.tokens)
    (bits,) = kvpress.kept([plan], case.model, case.tokens)
    for state, differs in zip(kvpress.states(case.model, case.tokens), bits != case.kept, strict=True):
        scores = order_of(method.scorer, state, kvpress.SELECTION).scores
        cuts = [method.threshold] if isinstance(method, DMS) else []
        moved = [*cuts, *scores[torch.from_numpy(differs[:, : scores.shape[1]])].tolist()]
        if differs.any() and max(moved) - min(moved) > 1e-5 * max(map(abs, moved)):
            return False
    return True


def unequal(chosen: Sequence[Case]) -> dict[str, str]:
    """The cases that are not held, ties aside."""
    wrong = kvpress.unequal(chosen, method_of, budget_of)
    across = {
        case.id
        for case in chosen
        if case.id in wrong
        and case.tie == "near"
        and case.settings["press"] in ("AdaKVPress", "DMSPress")
        and only_near(case)
    }
    return {id: said for id, said in wrong.items() if id not in across}


@kvpress.over(*VARIANTS)
def test_what_each_head_keeps_is_what_kvpress_keeps(which: str, variant: str) -> None:
    assert unequal(kvpress.cases(which, variant)) == {}


# --- wrong formulas


def _safeguard_on_top(chosen: int, alpha: float, window: int) -> int:
    return chosen - int(chosen * alpha)


def _no_safeguard(chosen: int, alpha: float, window: int) -> int:
    return 0


def _norms_of_values(self: LayerState) -> torch.Tensor:
    """Norms of the values themselves, not of what the output projection makes of them."""
    return self.values.norm(dim=-1).repeat_interleave(len(self.queries) // len(self.values), dim=0)


def _largest_norm(norms: torch.Tensor, cache_heads: int) -> torch.Tensor:
    return norms.reshape(cache_heads, -1, norms.shape[1]).amax(1)


def _whole_first_stage(self: two_stages.TwoStages, counts: torch.Tensor) -> torch.Tensor:
    return counts


def _sums_of_chunks(scores: torch.Tensor, length: int) -> torch.Tensor:
    return torch.stack([chunk.sum() for chunk in torch.split(scores, length)])


def _chunks_by_head(self: chunks.ChunkMeans, scores: torch.Tensor, layer: LayerState) -> torch.Tensor:
    """Each head has its own chunks."""
    means = [chunks.chunk_means(head, self.chunk_length) for head in scores]
    return torch.stack([m.repeat_interleave(self.chunk_length)[: scores.shape[1]] for m in means])


def _ranks_of_all(self: chunks.RanksInChunks, scores: torch.Tensor, layer: LayerState) -> torch.Tensor:
    return scores


def _entropies_of_products(scores: torch.Tensor, length: int) -> torch.Tensor:
    return 1 - ENTROPIES(scores, length)


def _first_block_alone(self: blocks.Blocks, scores: torch.Tensor, layer: LayerState, counts: torch.Tensor) -> Any:
    """All scores at once."""
    return scores


def _above(self: thresholds.AtLeast, budget: int, shape: Any, seen: Any) -> Any:
    """A threshold on the scores of the window too."""
    return [[int(count) for count in (seen[0].scores >= self.threshold).sum(dim=1).clamp(min=shape.window)]]


ENTROPIES, SHARES = gated_chunks.entropies, two_stages.TwoStages.first
WRONG: dict[str, tuple[Any, str, Any, str]] = {
    "safeguard of the rest": (head_budgets, "safeguard", _safeguard_on_top, "AdaKVPress"),
    "no safeguard": (head_budgets, "safeguard", _no_safeguard, "AdaKVPress"),
    "norms before the projection": (LayerState, "projected_norms", property(_norms_of_values), "CriticalKVPress"),
    "largest norm of the group": (two_stages, "of_cache_heads", _largest_norm, "CriticalKVPress"),
    "one stage": (two_stages.TwoStages, "first", _whole_first_stage, "CriticalKVPress"),
    "safeguard not in the first stage": (
        two_stages.GuardedStages,
        "first",
        two_stages.TwoStages.first,
        "CriticalAdaKVPress",
    ),
    "sums of chunks": (chunks, "chunk_means", _sums_of_chunks, "ChunkKVPress"),
    "chunks of each head": (chunks.ChunkMeans, "rescore", _chunks_by_head, "ChunkKVPress"),
    "ranks over the prompt": (chunks.RanksInChunks, "rescore", _ranks_of_all, "ChunkPress"),
    "even chunks in part": (gated_chunks, "entropies", _entropies_of_products, "EntropyGatedChunkKVPress"),
    "one block": (blocks.Blocks, "rerank", _first_block_alone, "BlockPress"),
    "threshold in the window": (thresholds.AtLeast, "counts", _above, "DMSPress"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_fails_a_case(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where, name, formula, press = WRONG[wrong]
    monkeypatch.setattr(where, name, formula)
    assert failing(press)


def failing(press: str) -> int:
    """How many cases of a press are not held."""
    which = "whole" if kvpress.ROOTS["whole"].is_dir() else "part"
    names = [name for name in VARIANTS if kvpress.variants(which)[name]["press"] == press]
    return len(unequal(kvpress.cases(which, *names)))
