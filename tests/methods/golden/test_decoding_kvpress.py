"""kvpress while decoding: what each compression keeps of every layer and head, in the cache's order, and all ids.

Its prompt, its question and 65 new tokens run through the engine. Of equal scores kvpress's order is arbitrary: where
the scores of what it kept are as good as ours, its order is taken, on which later compressions depend.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.compression.eviction import Entries, Eviction
from harness.compression.grid import Plan
from harness.compression.method import Method
from harness.engine.attention import ENGINE
from harness.engine.decode import decode
from harness.engine.evicting import EvictingKV
from harness.engine.layer_forms import layer_forms
from harness.engine.model_parts import ModelParts
from harness.engine.prefill_attention import PrefillAttention
from harness.engine.rows import Limits, Row
from methods.decoding import Decoding, ScoredEntries
from methods.expected_attention import ExpectedAttention
from methods.keydiff import KeyDiff
from methods.knorm import Knorm
from methods.snapkv_kvpress import SnapKVKvpress
from methods.streamingllm import StreamingLLM
from methods.tova import Tova
from tests.methods.golden import kvpress
from tests.methods.golden.kvpress import ROOTS, SELECTION, plan_of

NEAR = 1e-5


@dataclass(frozen=True, eq=False)
class Run:
    """One recorded run.

    Attributes:
        data: its fields.
        events: kept positions, [layers and events, heads, entries], padded.
        meta: of each, its layer, forward, hidden rows, length before and after, and last position.
        prompt: kept positions of the prompt in the cache's order, [layers, heads, entries]; None if all were.
    """

    data: dict[str, Any]
    events: Any
    meta: Any
    prompt: Any

    @property
    def settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = self.data["settings"]
        return settings.get("decoding", settings)


@lru_cache
def runs(which: str) -> tuple[Run, ...]:
    """All of them but those of Expected Attention, which needs queries of all tokens."""
    folder = ROOTS[which]
    return tuple(_read(folder)) if (folder / "pipeline.json").is_file() else ()


def _read(folder: Any) -> Iterator[Run]:
    arrays = np.load(folder / "pipeline.npz")
    for data in json.loads((folder / "pipeline.json").read_text())["cases"]:
        if data["kind"] == "pipe" or "/ea_e1e-2/" in data["id"]:
            continue
        prompt = arrays[data["prefill_kept_in_cache_order"]] if "prefill_kept_in_cache_order" in data else None
        yield Run(data, arrays[data["events"]], arrays[data["events"] + "_meta"], prompt)


def scorer_of(press: str) -> Method:
    """The method of a press with the settings of these runs."""
    made: dict[str, Method] = {
        "KeyDiffPress": KeyDiff("m"),
        "KnormPress": Knorm("m"),
        "SnapKVPress": SnapKVKvpress("m", 4, 5, "avgpool"),
        "StreamingLLMPress": StreamingLLM("m", 4, None),
        "TOVAPress": Tova("m", True),
    }
    return made[press]


def prompt_of(press: str) -> Method:
    """The method of a press that compressed the prompt."""
    name = press.partition("(")[0]
    if name == "ExpectedAttentionPress":
        return ExpectedAttention("m", 4, 512, True, True, 0.0)
    return SnapKVKvpress("m", 8, 7, "avgpool") if name == "SnapKVPress" else scorer_of(name)


class Recorded(ScoredEntries):
    """Holds every eviction to the recorded one, and goes on in its order."""

    run: ClassVar[Run]
    seen: ClassVar[list[tuple[int, int]]]

    def kept(self, entries: Entries, target: int) -> Tensor:
        layer, last = entries.layer.index, int(entries.newest)
        meta = self.run.meta
        (found,) = np.flatnonzero((meta[:, 0] == layer) & (meta[:, 5] == last))
        assert (meta[found, 3], meta[found, 4]) == (entries.keys.shape[2], target)
        recorded = torch.from_numpy(self.run.events[found, :, :target].astype(np.int64))
        places = (entries.positions[0, :, None] == recorded[..., None]).int().argmax(-1)
        assert torch.equal(entries.positions[0].gather(1, places), recorded), "it kept what is dropped"
        own = super().kept(entries, target)[0]
        if self.run.settings["base"] == "StreamingLLMPress":  # all that is kept scores 1
            assert torch.equal(own.sort(-1).values, places.sort(-1).values)
        else:
            scores = self._scores(entries, entries.keys, entries.values)[0]
            worse = scores.gather(1, own) - scores.gather(1, places)
            assert (worse.abs() <= NEAR * scores.abs().amax()).all(), "its scores are not ours"
        self.seen.append((layer, last))
        return places[None]


@torch.inference_mode()
def compare(run: Run) -> None:
    """Hold a run to its record."""
    settings, name = run.settings, run.data["model"]
    model, context = kvpress.model(name), tuple(run.data["context_ids"])
    ratio = settings.get("target_compression_ratio")
    prompt = None if run.prompt is None else prompt_of(run.data["settings"]["prefill"])
    base, every = scorer_of(settings["base"]), settings["compression_interval"]
    method = Decoding("m", base, every, ratio, prompt, None if run.prompt is None else 0.5, "kvpress")
    plan = plan_of(method, settings.get("target_size", len(context)), name, len(context))
    evictor = method.evictor
    held = Recorded(evictor.evict_every, evictor.scorer, evictor.ratio, True)
    Recorded.run, Recorded.seen = run, []
    assert plan.eviction is not None
    plan = replace(plan, eviction=Eviction(held, plan.eviction.budgets))
    layers = prefilled(run, plan, name, context)
    (question,), (start,) = run.data["question_ids"], run.data["question_start"]
    row = Row(start + len(question), torch.zeros(model.config.vocab_size), layers, None, tuple(question))
    (generated,) = decode(model, name, [row], Limits(frozenset(), len(run.data["generated"][0])))
    assert list(generated.tokens) == run.data["generated"][0]
    assert sorted(Recorded.seen) == sorted((int(layer), int(last)) for layer, last in run.meta[:, [0, 5]])


def prefilled(run: Run, plan: Plan, name: str, context: Sequence[int]) -> list[Any]:
    """What is kept of the prompt, in the recorded order."""
    model = kvpress.model(name)
    attention = PrefillAttention([plan], layer_forms(model), SELECTION, None, True, parts=ModelParts(model, name))
    model(torch.tensor([context]), use_cache=False, logits_to_keep=1, **{ENGINE: attention})
    attention.keeping.end()
    layers = attention.keeping.growing[plan].layers
    if run.prompt is None:
        return layers
    ordered = []
    for kept, recorded in zip(layers, run.prompt, strict=True):
        assert isinstance(kept, EvictingKV)
        wanted = torch.from_numpy(recorded.astype(np.int64))
        assert torch.equal(wanted.sort(-1).values, kept.positions)
        ordered.append(replace(kept, order=wanted.argsort(-1).argsort(-1)))
    return ordered


def test_a_small_part_is_compressed_as_by_kvpress() -> None:
    assert runs("part")
    for run in runs("part"):
        compare(run)


@pytest.mark.slow
@pytest.mark.skipif(not runs("whole"), reason=f"the whole golden data is not at {ROOTS['whole']}")
@pytest.mark.parametrize("run", runs("whole"), ids=lambda run: run.data["id"])
def test_every_run_is_compressed_as_by_kvpress(run: Run) -> None:
    compare(run)
