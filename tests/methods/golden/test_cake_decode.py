"""CAKE's own code while decoding: which entries are kept, in the cache's order, after every step in every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from harness.compression.budget import Budget
from harness.compression.eviction import Entries
from harness.compression.grid import Variant
from harness.engine.buckets import Joining
from harness.engine.evicting import EvictingBucket, EvictingKV
from harness.engine.keeping import Keeping
from harness.results import Cell
from methods.cake import CAKEDecode, NewestAttention, pool
from tests.methods.golden.decoding import KV_HEADS
from tests.methods.golden.papers import SCORES, Case, over, shape_of, states


class Recorded(NewestAttention):
    """Entries in the recorded order, once their scores are as good as those of our own: where they tie, it goes on."""

    recorded: ClassVar[Tensor]
    steps: ClassVar[int]

    def kept(self, entries: Entries, target: int) -> Tensor:
        own, recorded = super().kept(entries, target)[0], self.recorded[:, :target]
        places = (entries.positions[0, :, None] == recorded[..., None]).int().argmax(-1)
        assert torch.equal(entries.positions[0].gather(1, places), recorded)
        assert entries.statistic is not None
        earlier = entries.statistic[0, ..., : entries.statistic.shape[-1] - self.window]
        scores = pool(earlier.flatten(0, 1), self.kernel, "avgpool").view(*earlier.shape).mean(1)
        ours, theirs = (scores.gather(1, one[:, : target - self.window]) for one in (own, places))
        assert ((ours - theirs).abs() <= SCORES * scores.max()).all()
        assert torch.equal(own[:, target - self.window :], places[:, target - self.window :])
        return places[None]


def compare(case: Case) -> None:
    params, layers = case.params, states(case)
    knobs = (params["gamma"], 5, params["tau1"], params["tau2"], params["cascading"])
    method = CAKEDecode("cake_decode", params["window_size"], *knobs, 1)
    budget = Budget("b", tokens=params["cache_size"])
    plan = Variant(Cell("m", "b"), method, budget).plan(shape_of(layers, KV_HEADS))
    keeping = Keeping([plan], KV_HEADS)
    for state in layers:
        keeping.take(state, {})
    keeping.end()
    recorded = case.expect["kept_prefill_stored_order"]
    for index, (kept, state) in enumerate(zip(keeping.growing[plan].layers, layers, strict=True)):
        assert isinstance(kept, EvictingKV)
        order = torch.tensor(recorded[index])
        if not case.data["tie_at_cut"]:
            assert torch.equal(kept.positions, order.sort(-1).values)
        places = order[..., None].expand(-1, -1, params["D"])
        start = replace(
            kept,
            keys=state.keys.gather(1, places),
            values=state.values.gather(1, places),
            positions=order,
            order=None,
            evictor=Recorded(1, method.window, method.kernel),
        )
        compare_layer(case, index, start, case.array(f"decode_pos{index}").long())


def compare_layer(case: Case, index: int, start: EvictingKV, wanted: Tensor) -> None:
    bucket = EvictingBucket([start], Joining(0, len(wanted)))
    for step, positions in enumerate(wanted):
        held = case.expect["decode_len"][step][index]
        Recorded.recorded = positions[:, :held]
        token = start.total + step
        new = (case.input(f"{part}{index}")[:, :, token : token + 1] for part in "qkv")
        bucket.attend(*new, start.layer.softmax.scaling, 0)
        bucket.advance()
        assert bucket.schedule.held == held and bucket.order is not None
        found = bucket.positions[0, :, :held].gather(1, bucket.order[0, :, :held])
        assert torch.equal(found, positions[:, :held])


@over("cake", lambda case: "budget_list" not in case.params)
def test_every_layer_keeps_its_share_while_decoding(case: Case) -> None:
    compare(case)
