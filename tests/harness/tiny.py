"""Random little models, and one method of every kind with its edges, for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.compression.allocation import Allocation, Seen, Shape
from harness.compression.budget import parse_budget
from harness.compression.grid import Plan, Waiting
from harness.compression.method import Method
from harness.compression.scorers import WindowAttention
from harness.compression.selection import Selection
from harness.engine.attention import install
from harness.engine.decode import decode
from harness.engine.layer_forms import layer_windows
from harness.engine.prefill import Kept, prefill
from harness.engine.rows import Generated, Limits, Row
from methods.fullkv import FullKV
from methods.h2o import H2O
from methods.pyramidkv import PyramidKV
from methods.snapkv import SnapKV
from methods.streamingllm import StreamingLLM
from tests.harness.counts import keep_of

HEADS = 4
VOCABULARY = 61
NAME = "tiny"


def config(kv_heads: int = 2, layers: int = 3) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        max_position_embeddings=512,
        initializer_range=0.3,
        eos_token_id=2,
    )


def prompt_of(tokens: int, seed: int = 0) -> tuple[int, ...]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(1000 * seed + tokens)
    return tuple(torch.randint(VOCABULARY, (tokens,), generator=generator).tolist())


@lru_cache
def tiny(kv_heads: int = 2, layers: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> PreTrainedModel:
    """A random Llama with the engine's attention. In float64 no rounding decides a token, whatever rows decode
    together."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config(kv_heads, layers))
    model.to(dtype).train(False)  # type: ignore[arg-type]
    install(model)
    return model


@dataclass(frozen=True)
class Uneven(Allocation):
    """What the budget leaves beside the windows goes to the best scores of a layer, or of all layers, in any head."""

    across: Literal["layer", "layers"]

    @property
    def sees(self) -> Literal["layer", "layers"]:
        return self.across

    def counts(self, budget: int, shape: Shape, seen: Sequence[Seen]) -> Sequence[Sequence[int]]:
        scores = torch.stack([layer.scores for layer in seen])  # [layers, heads, candidates]
        each = min(budget, shape.tokens) - shape.window
        best = scores.flatten().topk(each * scores.shape[0] * scores.shape[1]).indices
        heads = torch.bincount(best // scores.shape[2], minlength=scores.shape[0] * scores.shape[1])
        return [[count + shape.window for count in layer] for layer in heads.view(scores.shape[:2]).tolist()]


@dataclass(frozen=True)
class Ragged(Method):
    """SnapKV's scores with budgets per head."""

    window: int
    across: Literal["layer", "layers"]

    @property
    def scorer(self) -> WindowAttention:
        return WindowAttention(self.window, 5, "maxpool")

    @property
    def allocation(self) -> Uneven:
        return Uneven(self.across)


def methods(window: int = 4, kernel: int = 5) -> dict[str, Method]:
    """Every method, and every knob that changes how it works."""
    return {
        "fullkv": FullKV("fullkv"),
        "streamingllm": StreamingLLM("streamingllm", window, None),
        "streamingllm-window": StreamingLLM("streamingllm", None, window),
        "h2o": H2O("h2o", window, True),
        "h2o-noncausal": H2O("h2o", window, False),
        "snapkv": SnapKV("snapkv", window, kernel, "maxpool"),
        "snapkv-avgpool": SnapKV("snapkv", window, kernel, "avgpool"),
        "pyramidkv": PyramidKV("pyramidkv", window, kernel, "maxpool", 20, "reference"),
        "pyramidkv-exact": PyramidKV("pyramidkv", window, kernel, "maxpool", 4, "exact"),
        "heads-of-a-layer": Ragged("heads-of-a-layer", window, "layer"),
        "heads-of-all-layers": Ragged("heads-of-all-layers", window, "layers"),
    }


def edges(prompt_tokens: int, window: int) -> dict[str, int]:
    """Budgets at which something begins or ends, for one prompt; none below what every method accepts."""
    share = prompt_tokens // 2 + window  # 2 * (share - window) is the prompt: where PyramidKV begins to slope
    budgets = {
        "window+1": window + 1,
        "prompt-1": prompt_tokens - 1,
        "prompt": prompt_tokens,
        "prompt+1": prompt_tokens + 1,
        "slope-1": share - 1,
        "slope": share,
        "slope+1": share + 1,
        "12%": parse_budget("12%").entries(prompt_tokens),
        "full": parse_budget("full").entries(prompt_tokens),
    }
    return {name: max(budget, window + 1) for name, budget in budgets.items()}


@dataclass(frozen=True)
class Cell:
    """One variant of one prompt."""

    prompt: tuple[int, ...]
    method: Method
    budget: int

    def plan(self, layers: int, cache_heads: int = HEADS) -> Plan:
        tokens, scorer, allocation = len(self.prompt), self.method.scorer, self.method.allocation
        if scorer is None or allocation.sees == "shape":
            return Plan(tuple(keep_of(self.method, self.budget, tokens, layers)), scorer)
        if tokens <= scorer.window:
            return Plan((tokens,) * layers, None)
        shape = Shape(tokens, layers, HEADS, cache_heads, cache_heads, scorer.window)
        return Plan((min(self.budget, tokens),) * layers, scorer, Waiting(allocation, self.budget, shape))


@st.composite
def cells(draw: st.DrawFn, prompts: int = 3, most: int = 4) -> list[Cell]:
    """Variants of up to ``prompts`` prompts of different lengths, at least one of each, in any order."""
    found = []
    for _ in range(draw(st.integers(1, prompts))):
        prompt = prompt_of(draw(st.integers(1, 48)), draw(st.integers(0, 9)))
        for _ in range(draw(st.integers(1, most))):
            window = draw(st.integers(1, 8))
            method = draw(st.sampled_from(list(methods(window, draw(st.sampled_from([1, 3, 4, 7]))).values())))
            found.append(Cell(prompt, method, draw(st.sampled_from(sorted(set(edges(len(prompt), window).values()))))))
    return draw(st.permutations(found))


def selections() -> st.SearchStrategy[Selection]:
    return st.builds(
        Selection,
        granularity=st.sampled_from(["query_head", "kv_head"]),
        group=st.sampled_from(["mean", "max", "sum"]),
        ties=st.sampled_from(["stable", "torch"]),
        dtype=st.sampled_from(["float32", "model"]),
    )


STABLE = Selection("query_head", "mean", "stable", "float32")


def decode_together(
    model: PreTrainedModel,
    cells: Sequence[Cell],
    selection: Selection = STABLE,
    stop_ids: frozenset[int] = frozenset(),
    max_new_tokens: int = 6,
    min_new_tokens: int = 0,
    check: Callable[[Cell, Kept], None] | None = None,
) -> tuple[list[Generated], list[Tensor]]:
    """One prefill per distinct prompt, one wide decoding for all cells.

    Returns:
        Per cell, its outcome and the logits [steps, vocabulary] that were seen for it.
    """
    layers = layer_windows(model.config).count(None)
    cache_heads = HEADS if selection.granularity == "query_head" else model.config.num_key_value_heads
    rows: dict[int, Row] = {}
    for prompt in dict.fromkeys(cell.prompt for cell in cells):
        sharing = [place for place, cell in enumerate(cells) if cell.prompt == prompt]
        done = prefill(model, NAME, prompt, [cells[place].plan(layers, cache_heads) for place in sharing], selection)
        for place, kept in zip(sharing, done.kept, strict=True):
            if check is not None:
                check(cells[place], kept)
            rows[place] = Row(len(prompt), done.logits, list(kept.layers))
    seen: list[list[Tensor]] = [[] for _ in cells]

    def observe(batch: Sequence[int], logits: Tensor) -> None:
        for place, row in enumerate(batch):
            seen[row].append(logits[place].clone())

    in_order = [rows[place] for place in range(len(cells))]
    done_rows = decode(model, NAME, in_order, Limits(stop_ids, max_new_tokens, min_new_tokens), observe)
    return done_rows, [torch.stack(logits) for logits in seen]
