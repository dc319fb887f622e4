"""Packed entries in the cache: what a bucket attends to, rows that change nothing for others, and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.compression.allocation import Shape
from harness.compression.budget import parse_budgets
from harness.compression.channel_storage import PrunedChannels
from harness.compression.grid import Plan, make_grid
from harness.compression.merging_storage import Merged
from harness.compression.packing import Parts
from harness.compression.quantised_storage import Float8, Quantised
from harness.compression.selection import Selection
from harness.compression.storage import EXACT, Storage
from harness.engine.buckets import Joining, LayerKV
from harness.engine.decode import Decoding
from harness.engine.failures import SelectionFailed
from harness.engine.prefill import prefill
from harness.engine.rows import Limits, Row
from harness.engine.stored import Packed, StoredBucket, StoredKV, head_bytes, stored
from harness.errors import ConfigError
from methods.tova_decode import TovaDecode
from tests.harness.tiny import HEADS, NAME, STABLE, Cell, cells, methods, prompt_of, selections, tiny

DIM = 8
STORAGES: dict[str, Storage] = {
    "kivi2": Quantised("kivi2", "channel", 2, 4, 8),
    "kivi4": Quantised("kivi4", "channel", 4, 8, 8),
    "int8": Quantised("int8", "token", 8, None, 0),
    "int4-residual": Quantised("int4", "token", 4, 4, 3),
    "fp8": Float8("fp8"),
    "think": PrunedChannels("think", 0.4, 3, 4, "kept"),
    "think-of-the-prompt": PrunedChannels("think", 0.4, 0, 4, "prompt"),
}
BY_NAME = st.sampled_from(sorted(STORAGES))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_by_one(storage: Storage, first: Parts | None, kept: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Entries [heads, entries, D] of one row as they come back, packed from scratch; ``first``: keys of the prompt."""
    key_border, value_border = storage.borders(kept, keys.shape[1])
    if key_border:
        packed = first if isinstance(storage, PrunedChannels) else storage.pack_keys(keys[None, :, :key_border])
        assert packed is not None
        keys = torch.cat([storage.unpack_keys(packed, keys)[0], keys[:, key_border:]], 1)
    if value_border:
        back = storage.unpack_values(storage.pack_values(values[None, :, :value_border]), values)[0]
        values = torch.cat([back, values[:, value_border:]], 1)
    return keys, values


def dense(queries: Tensor, keys: Tensor, values: Tensor, start: int) -> Tensor:
    """Attention of queries [query heads, tokens, D] at ``start`` and behind it, head by head."""
    copies = len(queries) // len(keys)
    keys, values = keys.repeat_interleave(copies, 0), values.repeat_interleave(copies, 0)
    visible = torch.ones(queries.shape[1], keys.shape[1]).tril(start).bool()
    return (queries @ keys.mT * 0.5).masked_fill(~visible, -torch.inf).softmax(-1) @ values


@settings(max_examples=20)
@given(
    name=BY_NAME,
    counts=st.lists(st.integers(1, 20), min_size=2, max_size=2),
    question=st.integers(0, 9),
    steps=st.integers(1, 14),
    rows=st.integers(1, 3),
    drop_at=st.integers(0, 20),
    again=st.integers(0, 20),
    seed=st.integers(0, 99),
)
def test_a_bucket_attends_to_entries_packed_by_the_rule_and_to_the_newest_as_they_are(
    name: str, counts: list[int], question: int, steps: int, rows: int, drop_at: int, again: int, seed: int
) -> None:
    """Ragged heads, a question of several tokens, rows that leave, and steps that are repeated."""
    storage = STORAGES[name]
    entries = sum(counts)
    layers, exact, firsts = [], [], []
    for row in range(rows):
        keys, values = random(seed + row, entries, DIM), random(seed + row + 50, entries, DIM)
        seen = random(seed + row, 2, DIM).square()
        layers.append(stored(LayerKV(keys, values, (counts[0], counts[1])), storage, seen))
        heads = [(k[None], v[None]) for k, v in zip(keys.split(counts), values.split(counts), strict=True)]
        exact.append(heads)
        borders = [storage.borders(count, count)[0] for count in counts]
        firsts.append(
            [
                storage.first_keys(head[0][None], border, seen[place : place + 1][:, None]) if border else None
                for place, (head, border) in enumerate(zip(heads, borders, strict=True))
            ]
        )
    runs = layers[0].runs
    buckets = list(layers[0].buckets(layers, Joining(0, steps, question)))
    assert sum(bucket.shape[1] for bucket in buckets) == 2 and all(bucket.shape[0] == rows for bucket in buckets)
    here = list(range(rows))
    for step in range(steps + (question > 0)):
        tokens = question if question and step == 0 else 1
        new = random(1000 + seed + step, 3, len(here), 4, tokens, DIM)
        queries, keys, values = new[0], new[1, :, :2], new[2, :, :2]
        asked = tokens if question and step == 0 else 0
        for bucket, (heads, _) in zip(buckets, runs, strict=True):
            own, twice = slice(bucket.head, bucket.head + heads), slice(2 * bucket.head, 2 * (bucket.head + heads))
            out = bucket.attend(queries[:, twice], keys[:, own], values[:, own], 0.5, asked)
            if step == again:
                out = bucket.attend(queries[:, twice], keys[:, own], values[:, own], 0.5, asked)
            for place, row in enumerate(here):
                for head in range(heads):
                    at = bucket.head + head
                    before, of = exact[row][at], counts[at]
                    held = one_by_one(storage, firsts[row][at], of, *before)
                    every = [torch.cat([held[side], new[1 + side, place, at][None]], 1) for side in (0, 1)]
                    found = out[place, 2 * head : 2 * head + 2]
                    wanted = dense(queries[place, 2 * at : 2 * at + 2], *every, before[0].shape[1])
                    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
                    exact[row][at] = tuple(
                        torch.cat([before[side], new[1 + side, place, at][None]], 1) for side in (0, 1)
                    )
            if not asked:
                bucket.advance()
        if step == drop_at and len(here) > 1:
            for bucket in buckets:
                bucket.select([0] if len(here) == 2 else [0, 2])
            here = [here[0]] if len(here) == 2 else [here[0], here[2]]


@dataclass(frozen=True)
class StoredCell(Cell):
    """One variant of one prompt in a storage."""

    storage: Storage = EXACT

    def plan(self, layers: int, cache_heads: int = HEADS) -> Plan:
        return replace(super().plan(layers, cache_heads), storage=self.storage)


def rows_of(some: Sequence[StoredCell], selection: Selection, kv_heads: int, questions: Sequence[int]) -> list[Row]:
    model, heads = tiny(kv_heads), HEADS if selection.granularity == "query_head" else kv_heads
    rows = []
    for index, cell in enumerate(some):
        question = prompt_of(questions[index % len(questions)], index) if questions[index % len(questions)] else ()
        done = prefill(model, NAME, cell.prompt, [cell.plan(3, heads)], selection)
        rows.append(Row(len(cell.prompt) + len(question), done.logits, done.kept[0].layers, done.broken, question))
    return rows


@settings(max_examples=4)
@given(
    some=cells(prompts=2, most=3),
    names=st.lists(BY_NAME, min_size=6, max_size=6),
    selection=selections(),
    kv_heads=st.sampled_from([1, 2, 4]),
    questions=st.lists(st.integers(0, 3), min_size=1, max_size=3),
)
def test_rows_in_different_storages_generate_together_what_each_generates_alone(
    some: list[Cell], names: list[str], selection: Selection, kv_heads: int, questions: list[int]
) -> None:
    stored_cells = [
        StoredCell(cell.prompt, cell.method, cell.budget, STORAGES[name] if index % 3 else EXACT)
        for index, (cell, name) in enumerate(zip(some, names, strict=False))
    ]
    new_tokens = 10
    model = tiny(kv_heads)
    together = Decoding(model, NAME, Limits(frozenset({7}), new_tokens))
    rows = rows_of(stored_cells, selection, kv_heads, questions)
    half = len(rows) // 2 or 1
    together.add(rows[:half])
    if together.alive:
        together.step()
    if rows[half:]:
        together.add(rows[half:])
    while together.alive:
        together.step()
    found = together.take()
    for index, row in enumerate(rows_of(stored_cells, selection, kv_heads, questions)):
        alone = Decoding(model, NAME, Limits(frozenset({7}), new_tokens))
        alone.add([row])
        while alone.alive:
            alone.step()
        assert alone.take()[0] == found[index]


def test_rows_that_begin_with_the_same_entries_leave_them_as_they_were() -> None:
    plan = StoredCell(prompt_of(40), methods()["snapkv"], 24, STORAGES["kivi2"]).plan(3)
    done = prefill(tiny(), NAME, prompt_of(40), [plan], STABLE)
    layers = done.kept[0].layers

    def generated() -> tuple[int, ...]:
        decoding = Decoding(tiny(), NAME, Limits(frozenset(), 20))
        decoding.add([Row(40, done.logits, list(layers)), Row(40, done.logits, list(layers))])
        while decoding.alive:
            decoding.step()
        first, second = decoding.take().values()
        assert first == second
        return first.tokens

    assert generated() == generated()


def test_equal_forms_are_aliases_and_others_are_not() -> None:
    kivi = Quantised("kivi2", "channel", 2, 4, 8)
    forms = [EXACT, kivi, replace(kivi, label="other"), replace(kivi, bits=4), Float8("fp8")]
    cell = Cell(prompt_of(40), methods()["snapkv"], 24)
    plans = [replace(cell.plan(3), storage=form) for form in forms]
    exact, *packed = prefill(tiny(), NAME, prompt_of(40), plans, STABLE).kept
    assert packed[0].sha256 == packed[1].sha256
    assert len({kept.sha256 for kept in (exact, *packed)}) == 4
    assert {kept.entries for kept in (exact, *packed)} == {exact.entries}
    assert exact.bits is None
    # float64: 2 bits and two scales of 64 for 4 numbers; 8 of 24 values are not packed.
    assert packed[0].bits == pytest.approx((24 * 34 + 16 * 34 + 8 * 64) / 48)


@pytest.mark.parametrize("tokens", [4096, 4100])
def test_two_bits_at_4k_tokens_are_billed_as_what_is_allocated(tokens: int) -> None:
    storage = Quantised("kivi2", "channel", 2, 32, 128)
    states = torch.randn(2, 1, 2, tokens, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    layer = stored(LayerKV(states[0, 0], states[1, 0]), storage, None)
    assert isinstance(layer, StoredKV)
    billed, allocated = layer.bytes, sum(memory(keys) + memory(values) for keys, values in layer.stored)
    assert billed == 2 * head_bytes(storage, tokens, 64, torch.bfloat16)
    assert abs(allocated - billed) <= 0.01 * billed
    # Two bits and two scales of 16 bits for 32 numbers; the last 128 values and tokens % 128 keys are whole.
    whole = 128 + tokens % 128
    assert billed == 2 * 64 * ((2 * tokens - whole) * 3 + whole * 16) / 8
    (bucket,) = layer.buckets([layer, layer], Joining(0, 8))
    assert isinstance(bucket, StoredBucket)
    assert bucket.bytes == 2 * billed
    assert abs(memory(bucket.keys) + memory(bucket.values) - 2 * billed) <= 0.02 * billed


def memory(packed: Packed) -> int:
    """Bytes of the memory that tensors lie in, whatever part of it they show."""
    return sum(part.untyped_storage().nbytes() for part in (*packed.parts, packed.rest))


@pytest.mark.parametrize("name", sorted(STORAGES))
def test_bytes_of_a_head_are_known_before_there_is_one(name: str) -> None:
    for entries in (1, 7, 8, 9, 40):
        states = random(0, 3, entries, DIM)
        layer = stored(LayerKV(states, states), STORAGES[name], random(1, 6, DIM))
        assert layer.bytes == 3 * head_bytes(STORAGES[name], entries, DIM, torch.float64)
        assert layer.numbers == 2 * states.numel()


@dataclass(frozen=True)
class Unchanged(Storage):
    """Gives back what it got."""

    def borders(self, kept: int, entries: int) -> tuple[int, int]:
        return entries, entries

    def pack_keys(self, keys: Tensor) -> Parts:
        return (keys.clone(),)

    pack_values = pack_keys

    def unpack_keys(self, parts: Parts, like: Tensor) -> Tensor:
        return parts[0]

    unpack_values = unpack_keys


def test_a_storage_that_changes_nothing_is_an_error_that_ends_its_variants_alone() -> None:
    same = Unchanged("same")
    cell = Cell(prompt_of(40), methods()["snapkv"], 24)
    plans = [cell.plan(3), replace(cell.plan(3), storage=same)]
    with pytest.raises(SelectionFailed) as error:
        prefill(tiny(), NAME, cell.prompt, plans, STABLE)
    assert error.value.at == same
    assert isinstance(error.value.__cause__, ConfigError)
    assert "storage=same gives back all keys and values exactly" in str(error.value.__cause__)


def test_entries_of_which_none_is_packed_yet_are_no_error() -> None:
    plan = replace(Cell(prompt_of(6), methods()["fullkv"], 6).plan(3), storage=STORAGES["kivi2"])
    (kept,) = prefill(tiny(), NAME, prompt_of(6), [plan], STABLE).kept
    assert kept.bits == 64


@pytest.mark.parametrize("how", ["pivot", "weighted"])
@pytest.mark.parametrize("method", ["snapkv", "heads-of-a-layer", "heads-of-all-layers"])
def test_what_is_dropped_is_merged_into_the_kept_entry_with_the_nearest_key(
    method: str, how: Literal["pivot", "weighted"]
) -> None:
    cell = Cell(prompt_of(40), methods()[method], 12)
    whole, exact = Cell(prompt_of(40), methods()["fullkv"], 40).plan(3, 2), cell.plan(3, 2)
    chosen = replace(STABLE, granularity="kv_head")
    plans = [whole, exact, replace(exact, storage=Merged("merge", how))]
    every, kept, merged = prefill(tiny(), NAME, cell.prompt, plans, chosen).kept
    assert merged.sha256 != kept.sha256 and merged.bytes == kept.bytes and merged.bits is None
    for full, plain, found in zip(every.layers, kept.layers, merged.layers, strict=True):
        heads = [(keys[head], values[head]) for keys, values in plain.parts() for head in range(len(keys))]
        mine = [(keys[head], values[head]) for keys, values in found.parts() for head in range(len(keys))]
        for head, (keys, values) in enumerate(heads):
            sums = [[key.clone(), value.clone(), 1.0] for key, value in zip(keys, values, strict=True)]
            for key, value in zip(full.keys[head], full.values[head], strict=True):
                if (keys == key).all(-1).any():
                    continue
                cosines = torch.nn.functional.cosine_similarity(keys, key[None])
                place = int(cosines.argmax())
                weight = 1.0 if how == "pivot" else (float(cosines[place]) + 1) / 2
                other = ((key + keys[place]) / 2, (value + values[place]) / 2) if how == "pivot" else (key, value)
                sums[place] = [
                    sums[place][0] + weight * other[0], sums[place][1] + weight * other[1], sums[place][2] + weight
                ]  # fmt: skip
            for side in (0, 1):
                expected = torch.stack([one[side] / one[2] for one in sums])
                torch.testing.assert_close(mine[head][side], expected)


def test_a_cell_that_drops_nothing_is_an_alias_of_the_one_that_merges_nothing() -> None:
    (variant,) = make_grid([methods()["fullkv"]], parse_budgets([12]), storages=[Merged("merge_pivot", "pivot")])
    assert variant.cell.label == "fullkv+merge_pivot"
    assert variant.plan(Shape(40, 3, 4, 2, 4)) == Plan((40,) * 3, None)
    with pytest.raises(ConfigError, match="would drop entries that are packed or merged together"):
        make_grid([TovaDecode("tova", 1)], parse_budgets([12]), storages=[Merged("merge_pivot", "pivot")])
