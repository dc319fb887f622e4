"""The prefill goldens of kvpress: its cases, its two models, and the comparison of what a method keeps.

A test takes ``cases(which, *variants)`` and asks ``unequal(cases, method)``. ``which`` is ``part``, a small part in the
repository, or ``whole``, all of it where it is there; ``over`` runs a test for both. Each prompt is prefilled once for
all tests: the states of its layers are held, and what plans keep of them is the engine's own ``Keeping``.

Made by kvpress 0.5.5 (Apache-2.0). A tie at the cut: what lies within 1e-5 of it may be chosen otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compression.allocation import Shape
from harness.compression.budget import Budget
from harness.compression.grid import Plan, Variant
from harness.compression.method import LayerState, Method
from harness.compression.selection import Selection
from harness.engine.attention import ENGINE, install
from harness.engine.keeping import Keeping
from harness.engine.layer_forms import layer_forms
from harness.engine.model_parts import ModelParts
from harness.engine.prefill_attention import PrefillAttention
from harness.results import Cell

Bits = NDArray[np.bool_]

ROOT = Path(__file__).parents[3]
ROOTS = {"part": ROOT / "tests/golden/kvpress", "whole": ROOT.parent / "shared/golden/kvpress"}
SELECTION = Selection("kv_head", "mean", "stable", "float32")

# Scales of the weights, by a part of their names; the weights of norms are ones.
_SCALES = {
    "embed_tokens": 1.0,
    "q_proj": 0.17,
    "k_proj": 0.17,
    "v_proj": 0.09,
    "o_proj": 0.06,
    "gate_proj": 0.09,
    "up_proj": 0.09,
    "down_proj": 0.06,
    "lm_head": 0.09,
}


@dataclass(frozen=True, eq=False)
class Case:
    """One run of kvpress.

    Attributes:
        id: variant/level/model/tokens.
        variant: name of the press and its settings in ``variants.json``.
        level: compression ratio, or what ``settings["level_means"]`` says.
        model: ``gqa`` or ``mha``.
        tokens: length of the prompt.
        settings: the press and its settings.
        kept: what it kept, [layers, kv_heads, tokens]; of ThinK the channels that it removed, [layers, kv_heads, 32].
        tie: None where its choice is certain; ``exact`` or ``near``.
        tied: tokens within 1e-5 of the last cut, [layers, kv_heads, tokens]; None where they were not recorded.
        counts_certain: False where a tie moves entries from one head to another.
        rekeys: the first re-rotated keys of the last layer and head, [6, head_dim]; None where keys are not.
    """

    id: str
    variant: str
    level: Any
    model: str
    tokens: int
    settings: Mapping[str, Any]
    kept: Bits
    tie: str | None
    tied: Bits | None
    counts_certain: bool
    rekeys: NDArray[np.float32] | None = None

    @property
    def budget(self) -> int:
        """Entries per head that kvpress keeps at a compression ratio: cut down, not rounded."""
        return max(1, int(self.tokens * (1 - self.level)))


# --- the data


@lru_cache
def _text(which: str, file: str) -> Any:
    return json.loads((ROOTS[which] / file).read_text())


@lru_cache
def arrays(which: str, file: str = "prefill.npz") -> Mapping[str, NDArray[Any]]:
    """The arrays of one file."""
    return dict(np.load(ROOTS[which] / file))


def variants(which: str) -> Mapping[str, Mapping[str, Any]]:
    """The settings of every variant."""
    found: Mapping[str, Mapping[str, Any]] = _text(which, "variants.json")
    return found


def anchors(which: str) -> Mapping[str, Mapping[str, Any]]:
    """Numbers of each model and prompt, by ``model/tokens``."""
    found: Mapping[str, Mapping[str, Any]] = _text(which, "models.json")["anchors"]
    return found


def cases(which: str, *names: str) -> list[Case]:
    """The cases of some variants, in the order of the file."""
    found = []
    for case in _text(which, "cases.json"):
        if case["variant"] not in names:
            continue
        key, tokens = f"{case['model']}_{case['T']}", case["T"]
        read_by = variants(which)[case["variant"]]["read_by"]

        def bits(name: str, row: int, key: str = key, tokens: int = tokens) -> Bits:
            packed = arrays(which)[f"{name}_{key}"][row]
            return np.unpackbits(packed, axis=-1)[..., :tokens].astype(bool)

        found.append(
            Case(
                id=case["id"],
                variant=case["variant"],
                level=case["level"],
                model=case["model"],
                tokens=tokens,
                settings=variants(which)[case["variant"]],
                kept=bits("channels", case["row"], tokens=32) if read_by == "channels" else bits("kept", case["row"]),
                tie=case["tie"],
                tied=bits("tied", case["tied_row"]) if "tied_row" in case else None,
                counts_certain=not case.get("tie_changes_counts", False),
                rekeys=arrays(which)[f"rekeys_{key}"][case["rekeys_row"]] if "rekeys_row" in case else None,
            )
        )
    return found


def over(*names: str) -> pytest.MarkDecorator:
    """Run a test ``(which, variant)`` for variants in the part, and as slow tests in the whole."""
    parameters = [pytest.param("part", name, id=f"part-{name}") for name in names]
    if ROOTS["whole"].is_dir():
        parameters += [pytest.param("whole", name, id=f"whole-{name}", marks=pytest.mark.slow) for name in names]
    else:
        skip = pytest.mark.skip(reason=f"the whole golden data is not at {ROOTS['whole']}")
        parameters.append(pytest.param("whole", "", id="whole", marks=[pytest.mark.slow, skip]))
    return pytest.mark.parametrize(("which", "variant"), parameters)


# --- the models


def _weights(model: torch.nn.Module, seed: int) -> dict[str, Tensor]:
    """Weights by the recipe: draws in float64, parameter after parameter in the order of names; norms are ones."""
    weights = {}
    for index, (name, parameter) in enumerate(sorted(model.named_parameters())):
        if "norm" in name:
            weights[name] = torch.ones(parameter.shape)
            continue
        (scale,) = (scale for part, scale in _SCALES.items() if part in name)
        generator = torch.Generator().manual_seed(seed + index)
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale
        weights[name] = drawn.to(torch.float32)
    return weights


@lru_cache
def model(name: str) -> Any:
    """The Llama ``gqa`` or ``mha``, whose attention is the engine's; its weights are held against their hash."""
    from transformers import LlamaConfig, LlamaForCausalLM

    recipe = _text("part", "models.json")["models"][name]
    made = LlamaForCausalLM(LlamaConfig(**recipe["config"], attn_implementation="eager")).eval()
    weights = _weights(made, recipe["seed"])
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(weights[key].numpy().tobytes())
    assert digest.hexdigest() == recipe["sha256"], f"the weights of {name} are not those of kvpress's runs"
    made.load_state_dict(weights)
    install(made)
    return made


class _Recorder(Keeping):
    """Holds the states of all layers."""

    def __init__(self) -> None:
        super().__init__((), SELECTION)
        self.states: list[LayerState] = []

    def take(self, state: LayerState, scores: Mapping[Any, Tensor]) -> None:
        self.states.append(state)


def prompt(tokens: int) -> tuple[int, ...]:
    """The token ids of the prompt of this length."""
    return tuple(_text("part", "models.json")["prompts"][str(tokens)])


def states(name: str, tokens: int) -> tuple[LayerState, ...]:
    """The states of all layers of a model after the prompt of this length, with nothing derived from them yet."""
    return tuple(replace(state) for state in _states(name, tokens))


@lru_cache
@torch.inference_mode()
def _states(name: str, tokens: int) -> tuple[LayerState, ...]:
    return states_of(name, prompt(tokens))


@torch.inference_mode()
def states_of(name: str, prompt: Sequence[int]) -> tuple[LayerState, ...]:
    """The states of all layers of a model after these tokens."""
    loaded = model(name)
    recorder = _Recorder()
    attention = PrefillAttention((), layer_forms(loaded), SELECTION, None, True, parts=ModelParts(loaded, name))
    attention.keeping = recorder
    ids = torch.tensor([list(prompt)])
    loaded(ids, use_cache=False, logits_to_keep=1, **{ENGINE: attention})
    return tuple(recorder.states)


# --- what is kept


def shape_of(name: str, tokens: int, selection: Selection = SELECTION) -> Shape:
    """What an allocation knows of a prompt."""
    config = model(name).config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    cache_heads = heads if selection.granularity == "query_head" else kv_heads
    return Shape(tokens, config.num_hidden_layers, heads, kv_heads, cache_heads)


def plan_of(method: Method, budget: int | Budget, name: str, tokens: int, selection: Selection = SELECTION) -> Plan:
    """The plan of a method at a budget; a number is an absolute one."""
    given = Budget(str(budget), tokens=budget) if isinstance(budget, int) else budget
    variant = Variant(Cell(method.label, given.text), method, given)
    return variant.plan(shape_of(name, tokens, selection))


@torch.inference_mode()
def kept(plans: Sequence[Plan], name: str, tokens: int, selection: Selection = SELECTION) -> list[Bits]:
    """What plans keep of one prompt, each [layers, heads of the cache, tokens]."""
    keeping = Keeping(plans, selection)
    for state in states(name, tokens):
        keeping.take(state, {})
    keeping.end()
    heads = shape_of(name, tokens, selection).cache_heads
    return [np.stack([kept_of(indices, heads, tokens) for indices in keeping.growing[plan].indices]) for plan in plans]


def kept_of(indices: Tensor | None, heads: int, tokens: int) -> Bits:
    """The entries that one layer keeps, [heads, tokens], from the indices of ``Growing``."""
    bits = np.zeros((heads, tokens), dtype=bool)
    if indices is None:
        bits[:] = True
    elif indices.ndim == 2:
        np.put_along_axis(bits, indices.numpy().astype(np.int64), True, axis=1)
    else:
        counts, joined = indices[:heads].tolist(), indices[heads:]
        for head, chosen in enumerate(torch.split(joined, counts)):
            bits[head, chosen.numpy()] = True
    return bits


def verdict(case: Case, bits: Bits) -> str:
    """``equal``, ``tie`` where only a tie was cut otherwise, or in a few words what is wrong."""
    if bits.shape != case.kept.shape:
        return f"shape {bits.shape} for {case.kept.shape}"
    wrong = (bits != case.kept).any(-1)
    if not wrong.any():
        return "equal"
    what = f"{int(wrong.sum())} of {wrong.size} heads differ, by {int((bits & ~case.kept).sum())} entries"
    if case.tie is None:
        return what
    if case.counts_certain and (bits.sum(-1) != case.kept.sum(-1)).any():
        return f"{what}; other numbers of entries"
    if case.tied is not None and ((case.kept & ~case.tied & ~bits).any() or (bits & ~case.kept & ~case.tied).any()):
        return f"{what}; not all of them in the tie"
    return "tie"


def check(
    chosen: Sequence[Case],
    method: Callable[[Case], Method],
    budget: Callable[[Case], int | Budget] = lambda case: case.budget,
) -> dict[str, str]:
    """Compare what a method keeps with what kvpress kept.

    Args:
        chosen: the cases.
        method: the method of a case.
        budget: its budget; a number is an absolute one.

    Returns:
        The ``verdict`` of each case, by its id.
    """
    by_prompt: dict[tuple[str, int], list[Case]] = {}
    for case in chosen:
        by_prompt.setdefault((case.model, case.tokens), []).append(case)
    verdicts = {}
    for (name, tokens), group in by_prompt.items():
        plans = [plan_of(method(case), budget(case), name, tokens) for case in group]
        for case, bits in zip(group, kept(plans, name, tokens), strict=True):
            verdicts[case.id] = verdict(case, bits)
    return verdicts


def unequal(
    chosen: Sequence[Case],
    method: Callable[[Case], Method],
    budget: Callable[[Case], int | Budget] = lambda case: case.budget,
) -> dict[str, str]:
    """The cases in which a method keeps something else than kvpress, ties aside; see ``check``."""
    return {id: said for id, said in check(chosen, method, budget).items() if said not in ("equal", "tie")}
