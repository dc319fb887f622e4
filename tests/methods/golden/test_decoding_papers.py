"""The papers' own code while decoding: what is kept after every step, sums, outputs, and positions within the cache."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from harness.compression.eviction import Entries, Evictor, victims
from harness.compression.method import LayerState, Scorer
from harness.engine.evicting import EvictingBucket
from methods.h2o_decode import H2ODecode
from methods.r_kv import RKV, UnrepeatedEntries
from methods.scissorhands_decode import FadingSums
from methods.streaming_llm_decode import OldestButSinks, StreamingLLMDecode
from methods.tova_decode import NewestQuery, TovaDecode
from tests.methods.golden import decoding
from tests.methods.golden.papers import SUMS, Case, assert_near, cases, over, unequal, wrong_formulas
from tests.methods.golden.wrong import Wrong


class RecentAlone(H2ODecode):
    """A budget without heavy hitters, which the method refuses."""

    def check_budget(self, budget: int) -> None:
        pass


@dataclass(frozen=True)
class Earliest(Scorer):
    """The first tokens."""

    window: ClassVar[int] = 0

    def score(self, layer: LayerState) -> Tensor:
        return -torch.arange(float(layer.keys.shape[1]))[None]


class SinksAlone(StreamingLLMDecode):
    """A budget without recent tokens, which the method refuses."""

    @property
    def scorer(self) -> Earliest:
        return Earliest()

    def check_budget(self, budget: int) -> None:
        pass


def compare_h2o(case: Case) -> None:
    params, rolling = case.params, case.params["variant"] == "streaming"
    method = (H2ODecode if params["hh_size"] else RecentAlone)("m", params["recent_size"], 1, rolling)
    states = decoding.layers_of(case, rolling)
    kept, out = decoding.start(
        method, params["hh_size"] + params["recent_size"], decoding.state_of(case, params["T"], rolling)
    )
    wanted, sums, outputs = (case.array(name) for name in ("kept_pos", "running_sum", "attn_out"))

    def hold(step: int, positions: Tensor, statistic: Tensor | None, out: Tensor) -> None:
        held = positions.shape[1]
        assert statistic is not None and held == case.expect["len_after"][step]
        assert torch.equal(positions, wanted[step][:, :held].long())
        assert_near(statistic, sums[step][:, :held], SUMS)
        assert_near(out.flatten(), outputs[step])

    hold(0, kept.positions, kept.statistic, out)
    for step, (bucket, out, _) in enumerate(decoding.run(kept, states, params["steps"]), 1):
        assert bucket.statistic is not None
        statistic = decoding.by_position(bucket, bucket.statistic[0, :, 0, : bucket.schedule.held])
        hold(step, decoding.positions(bucket), statistic, out)


@over("h2o", lambda case: "utils_real_drop" in case.data["ref"])
def test_h2o_drops_what_the_authors_code_drops_and_forgets_its_sum(case: Case) -> None:
    compare_h2o(case)


def compare_tova(case: Case) -> None:
    params = case.params
    kept, out = decoding.start(TovaDecode("m", 1), params["cache_size"], decoding.state_of(case, params["T"]))
    wanted, outputs = case.array("kept_pos"), case.array("attn_out")
    steps = decoding.run(kept, decoding.layers_of(case), params["steps"])
    found = [(kept.positions, out), *((decoding.positions(bucket), out) for bucket, out, _ in steps)]
    newest_dropped = []
    for step, (positions, out) in enumerate(found):
        held = positions.shape[1]
        assert held == case.expect["len_after"][step]
        assert (positions == wanted[step][:held].long()).all()  # the same in all heads
        assert_near(out.flatten(), outputs[step])
        if step and positions[0, -1] != params["T"] + step - 1:
            newest_dropped.append(step)
    assert newest_dropped == [step for step in case.expect["newest_evicted_steps"] if step]


@over("tova")
def test_tova_drops_what_the_authors_code_drops_even_the_newest(case: Case) -> None:
    compare_tova(case)


def compare_streaming(case: Case) -> None:
    """``token_by_token`` reads the prompt one by one; ``evict_for_space`` makes room for tokens before each call."""
    params, flow = case.params, case.params["flow"]
    sinks, budget = params["start_size"], params["start_size"] + params["recent_size"]
    makes_room = flow == "evict_for_space"
    if makes_room:
        budget = max(sinks, budget - params["num_coming"])
    wanted, outputs = case.array("kept_pos"), case.array("attn_out")
    prompt = 1 if flow == "token_by_token" else params["T"]
    method = (StreamingLLMDecode if budget > sinks else SinksAlone)("m", sinks, 1, True)
    kept, out = decoding.start(method, budget, decoding.state_of(case, prompt, True))
    assert_near(out.flatten(), outputs[0])
    if not makes_room:
        assert (kept.positions == wanted[0][: kept.positions.shape[1]].long()).all()
    steps = decoding.run(kept, decoding.layers_of(case, True), len(wanted) - 1)
    for step, (bucket, out, seen) in enumerate(steps, 1):
        positions = seen if makes_room else decoding.positions(bucket)
        held = positions.shape[1]
        assert held == case.expect["len_after"][step]
        assert seen.shape[1] == case.expect["keys_attended"][step] == case.expect["query_pos_id_last"][step] + 1
        assert (positions == wanted[step][:held].long()).all()
        # Equal outputs, as keys stand at their index in the cache.
        assert_near(out.flatten(), outputs[step])


@over("streamingllm")
def test_streaming_llm_keeps_sinks_and_recent_tokens_at_positions_within_the_cache(case: Case) -> None:
    compare_streaming(case)


class Recorded(UnrepeatedEntries):
    """Entries in the recorded order, once their scores are as good as those of our own.

    Of equal scores that code's order is arbitrary, and later steps depend on it.
    """

    case: ClassVar[Case]

    def kept(self, entries: Entries, target: int) -> Tensor:
        own, tokens = super().kept(entries, target), int(entries.newest) + 1
        recorded = self.case.array("kept_pos_stored_order")[tokens - self.case.params["T"], :, :target].long()
        places = (entries.positions[0, :, None] == recorded[..., None]).int().argmax(-1)
        assert torch.equal(entries.positions[0].gather(1, places), recorded)
        assert entries.queries is not None
        scores = self.unrepeated.of(entries.queries, entries.keys, entries.layer.softmax)[0]
        hold_scores(self.case, scores, own[0], places, self.unrepeated.window)
        return places[None]


def hold_scores(case: Case, scores: Tensor, own: Tensor, recorded: Tensor, window: int) -> None:
    own, recorded = own[:, : own.shape[1] - window], recorded[:, : recorded.shape[1] - window]
    if not tied(case):
        assert torch.equal(own, recorded)
    assert_near(scores.gather(1, own), scores.gather(1, recorded))


def tied(case: Case) -> bool:
    return bool(case.data["tie_at_cut"])


def compare_r_kv(case: Case) -> None:
    """What it calls "snapkv" is the same by importance alone."""
    params, wanted = case.params, case.array("kept_pos_stored_order").long()
    spared = "first" if params["retain_direction"].startswith("first") else "last"
    mix = params["mix_lambda"] if params["method"] == "rkv" else 1.0
    method = RKV("m", params["window_size"], params["kernel_size"], mix, spared, params["divide_length"])
    state = decoding.state_of(case, params["T"])
    kept, _ = decoding.start(method, params["budget"], state)
    held = kept.positions.shape[1]
    order = torch.arange(held).expand(kept.positions.shape) if kept.order is None else kept.order
    own, recorded = kept.positions.gather(1, order), wanted[0][:, :held]
    if held < params["T"]:
        hold_scores(case, method.scorer.score(state), own, recorded, params["window_size"])
    elif not tied(case):
        assert torch.equal(own, recorded)
    Recorded.case = case
    keys, values = (
        part.gather(1, recorded[..., None].expand(-1, -1, params["D"])) for part in (state.keys, state.values)
    )
    evictor = Recorded(method.evict_every, method.scorer)
    kept = replace(kept, keys=keys, values=values, positions=recorded, order=None, evictor=evictor)
    for step, (bucket, _, _) in enumerate(decoding.run(kept, decoding.layers_of(case), params["steps"]), 1):
        held = bucket.schedule.held
        assert bucket.order is not None and held == case.expect["len_after"][step]
        found = bucket.positions[0, :, :held].gather(1, bucket.order[0, :, :held])
        assert torch.equal(found, wanted[step][:, :held])


@over("rkv")
def test_r_kv_keeps_what_the_authors_code_keeps_in_its_order(case: Case) -> None:
    compare_r_kv(case)


# --- Scissorhands, whose code has functions alone


@over("scissor_nacl_l2norm", lambda case: case.id.startswith("scissorhands/update"))
def test_scissorhands_sums_fade_as_in_the_published_function(case: Case) -> None:
    evictor = FadingSums(1, 4, 2, case.params["history_window"], case.params["decay"])
    first, second = (evictor.reading(case.input(name)[:, :, None]) for name in ("attn0", "attn1"))
    found = evictor.updated(evictor.updated(torch.zeros_like(first), first), second)
    assert_near(found[0, :, 0], case.array("importance"), SUMS)


@over("scissor_nacl_l2norm", lambda case: case.id.startswith("scissorhands/topk") and case.params["token_budget"] < 40)
def test_scissorhands_keeps_sinks_recent_and_important_entries(case: Case) -> None:
    params, attention = case.params, case.input("attn")
    evictor = FadingSums(1, params["recent_size"], params["sink_size"], params["history_window"], 1.0)
    (_, heads, _, tokens), empty = attention.shape, torch.empty(1, attention.shape[1], 0, 1)
    positions = torch.arange(tokens).expand(1, heads, -1)
    statistic, newest = evictor.reading(attention[:, :, None]), torch.tensor([[[tokens - 1]]])
    layer = LayerState(*([empty[0]] * 3), 0, 1, 1.0, torch.float32)
    entries = Entries(empty, empty, positions, newest, statistic, None, layer, decoding.KV_HEADS)
    dropped = victims(evictor.scores(entries), positions, tokens - params["token_budget"])
    for head, wanted in enumerate(case.expect["kept_sorted"]):
        assert sorted({*range(tokens)} - set(dropped[0, head].tolist())) == wanted


# --- formulas that are wrong on purpose

WRONG = {
    "h2o: the last query alone": (
        Wrong(Evictor, "reading", "weights.sum(3, dtype=torch.float32)", "weights[..., -1, :].float()"),
        Wrong(Evictor, "updated", "statistic + reading", "reading"),
        compare_h2o,
        "h2o",
    ),
    "h2o: what was dropped is not forgotten": (
        Wrong(EvictingBucket, "end_call", "statistic[..., start:] = 0", "pass"),
        None,
        compare_h2o,
        "h2o",
    ),
    "tova: the largest head": (
        Wrong(NewestQuery, "scores", "mean((1, 2))", "amax((1, 2))"),
        None,
        compare_tova,
        "tova",
    ),
    "streaming: own positions": (
        Wrong(OldestButSinks, "rerotated", "self.sinks if self.rolling else 0", "0"),
        None,
        compare_streaming,
        "streamingllm",
    ),
    "r_kv: in the order of positions": (
        Wrong(UnrepeatedEntries, "kept", "best, last], -1)", "best, last], -1).sort(-1).values"),
        None,
        compare_r_kv,
        "rkv",
    ),
}


@wrong_formulas
@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_formula_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, compare, file = WRONG[name]
    among = [case for case in cases("whole", file) if "utils_hh" not in case.id][:4]
    for wrong in filter(None, (first, second)):
        wrong.put(monkeypatch)
    assert unequal(compare, among) > 0


def test_a_sum_that_layers_share_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cases run in turn, as layers of a model would, and read into one sum."""
    case = next(case for case in cases("part", "h2o") if "real_drop" in case.id)
    shared: list[Tensor] = []

    def updated(self: Evictor, statistic: Tensor, reading: Tensor) -> Tensor:
        shared.append(reading)
        return statistic + sum(one for one in shared[-2:] if one.shape == reading.shape)

    compare_h2o(case)
    monkeypatch.setattr(Evictor, "updated", updated)
    with pytest.raises(AssertionError):
        compare_h2o(case)
