"""Packed entries of rows that evict: rows are as if alone, nothing is rounded twice, and nothing goes that need not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compression.budget import parse_budgets
from harness.compression.grid import Plan, make_grid
from harness.compression.method import Method
from harness.compression.quantised_storage import Float8, Quantised
from harness.compression.selection import Selection
from harness.compression.storage import Storage
from harness.engine.buckets import Joining
from harness.engine.decode import decode
from harness.engine.model_spec import shape_of
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from harness.engine.stored_evicting import StoredEvictingBucket, StoredEvictingKV
from harness.errors import ConfigError
from methods.fullkv import FullKV
from tests.harness.engine.test_evicting import evicting
from tests.harness.engine.test_stored import STORAGES
from tests.harness.tiny import NAME, prompt_of, tiny

BY_ENTRY: dict[str, Storage] = {
    "int8": Quantised("int8", "token", 8, None, 0),
    "int4": Quantised("int4", "token", 4, 4, 0),
    "fp8": Float8("fp8"),
}
LIMITS = Limits(frozenset(), 10)
CHOSEN = Selection("kv_head", "mean", "stable", "float32", "context")


def plan_of(method: Method, storage: Storage, budget: int, tokens: int) -> Plan:
    (variant,) = make_grid([method], parse_budgets([budget]), storages=[storage])
    return variant.plan(shape_of(tiny().config, tokens, CHOSEN))


def row_of(plan: Plan, tokens: int, question: int = 0) -> Row:
    done = prefill(tiny(), NAME, prompt_of(tokens), [plan], CHOSEN)
    asked = prompt_of(question, 1) if question else ()
    return Row(tokens + question, done.logits, list(done.kept[0].layers), None, asked)


@settings(max_examples=2)
@given(st.data())
def test_packed_rows_that_evict_generate_together_what_each_generates_alone(data: st.DataObject) -> None:
    methods = evicting(data.draw(st.sampled_from([1, 3])))
    made = []
    for _ in range(3):
        name, storage = data.draw(st.sampled_from(sorted(methods))), data.draw(st.sampled_from(sorted(BY_ENTRY)))
        tokens = data.draw(st.integers(14, 30))
        made.append((plan_of(methods[name], BY_ENTRY[storage], 12, tokens), tokens, data.draw(st.integers(0, 3))))
    together = decode(tiny(), NAME, [row_of(*one) for one in made], LIMITS)
    assert together == [decode(tiny(), NAME, [row_of(*one)], LIMITS)[0] for one in made]


@pytest.mark.parametrize("storage", sorted(BY_ENTRY))
@pytest.mark.parametrize("name", ["h2o", "tova"])
def test_with_room_for_all_nothing_is_evicted_and_tokens_are_those_without_eviction(name: str, storage: str) -> None:
    without = row_of(Plan((30,) * 3, None, storage=BY_ENTRY[storage]), 30, 2)
    plan = plan_of(evicting()[name], BY_ENTRY[storage], 60, 30)
    assert plan.eviction is not None
    evicted = row_of(plan, 30, 2)
    assert isinstance(evicted.layers[0], StoredEvictingKV)
    assert decode(tiny(), NAME, [evicted], LIMITS) == decode(tiny(), NAME, [without], LIMITS)


@pytest.mark.parametrize("storage", sorted(BY_ENTRY))
def test_entries_that_stay_while_others_leave_are_rounded_once(storage: str) -> None:
    form, tokens, steps = BY_ENTRY[storage], 20, 15
    plan = plan_of(evicting()["h2o"], form, 9, tokens)
    (row,) = row_of(plan, tokens).layers[:1]
    assert isinstance(row, StoredEvictingKV)
    exact = (
        prefill(tiny(), NAME, prompt_of(tokens), [replace(plan, storage=Storage("exact"))], CHOSEN).kept[0].layers[0]
    )
    (bucket,) = row.buckets([row, row], Joining(0, steps))
    assert isinstance(bucket, StoredEvictingBucket)
    assert 0 < bucket.bytes < 0.6 * exact.bytes * 2 * bucket.positions.shape[2] / 9
    new = torch.randn(2, 2, 2, steps, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    queries = torch.randn(2, 4, steps, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    known = {}
    for head in range(2):
        for place, position in enumerate(row.positions[head].tolist()):
            known[head, position] = exact.keys[head, place], exact.values[head, place]
    for step in range(steps):
        at = slice(step, step + 1)
        for _ in range(1 + (step == 3)):  # a step that is repeated
            bucket.attend(queries[:, :, at], new[0][:, :, at], new[1][:, :, at], 0.5, 0)
        bucket.advance()
        assert bucket.keys.numel() == 0, "what was unpacked is forgotten"
    held = bucket.schedule.held
    assert held == 9
    bucket._open()
    for head in range(2):
        for place, position in enumerate(bucket.positions[0, head, :held].tolist()):
            key, value = known.get((head, position), (None, None))
            if key is None:
                key, value = (side[0, head, position - tokens] for side in new)
            back = form.unpack_keys(form.pack_keys(key[None, None, None]), key)
            assert torch.equal(bucket.keys[0, head, place], back[0, 0, 0])
            back = form.unpack_values(form.pack_values(value[None, None, None]), value)
            assert torch.equal(bucket.values[0, head, place], back[0, 0, 0])
    assert (bucket.positions[0, :, :held] >= tokens).any(), "new entries took the place of old ones"


@pytest.mark.parametrize("name", sorted(STORAGES))
def test_only_storages_that_pack_each_entry_by_itself_go_with_eviction(name: str) -> None:
    storage = STORAGES[name]
    if storage.by_entry:
        assert plan_of(evicting()["tova"], storage, 12, 20).storage == storage
        return
    with pytest.raises(ConfigError, match="would drop entries that are packed .* as int8, int4 or fp8") as error:
        make_grid([FullKV("fullkv"), evicting()["tova"]], parse_budgets([12]), storages=[storage])
    assert "\n" not in str(error.value)
