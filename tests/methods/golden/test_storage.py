"""Storages against the papers' own code: KIVI's codes, values and schedules; quanto's codes; ThinK's channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.compression.channel_storage import PrunedChannels
from harness.compression.method import LayerState
from harness.compression.packing import Axis, Bits, Parts, dequantise, quantise, unpack
from harness.compression.quantised_storage import Quantised
from harness.engine.buckets import Joining, LayerKV
from harness.engine.stored import StoredBucket, stored
from harness.errors import ConfigError
from tests.methods.golden import kvpress
from tests.methods.golden.papers import SCORES, Case, assert_near, over


def words(packed: Tensor, axis: Axis) -> Tensor:
    """Bytes as the reference's words of 32 bits, lowest bits first, along an axis."""
    last = packed.movedim(axis, -1).contiguous().view(torch.int32)
    return last.movedim(-1, axis)


def assert_parts(case: Case, parts: Parts, axis: Axis, bits: Bits, group: int) -> None:
    """Codes, scales, zero points and values are the reference's, to the last bit; codes of constant groups aside."""
    packed, scale, zero = parts
    golden_scale = case.array("scale").squeeze(-2 if axis == -2 else -1)
    constant = golden_scale == 0
    spread = constant.repeat_interleave(group, dim=axis)
    codes, golden_codes = unpack(packed, bits, axis), case.array("codes")
    assert torch.equal(codes[~spread], golden_codes[~spread])
    assert (codes[spread] == 0).all()
    assert torch.equal(scale, golden_scale)
    assert torch.equal(zero, case.array("zero").squeeze(-2 if axis == -2 else -1))
    if not constant.any():
        assert torch.equal(words(packed, axis), case.array("packed"))
    values = dequantise(parts, bits, group, axis)
    assert torch.equal(values[~spread], case.array("dequant")[~spread])
    sizes = {"codes": packed.nbytes, "scale": scale.nbytes, "zero": zero.nbytes}
    assert sizes == case.expect["bytes"]


@over("kivi", lambda case: case.params.get("kind") in ("key", "value") and not case.raises)
def test_codes_scales_zero_points_and_values_are_those_of_kivi(case: Case) -> None:
    axis: Axis = -2 if case.params["kind"] == "key" else -1
    bits, group = case.params["bits"], case.params["group_size"]
    numbers = case.input("x")
    parts = quantise(numbers, bits, group, axis)
    assert_parts(case, parts, axis, bits, group)
    spread = (parts[1] == 0).repeat_interleave(group, dim=axis)
    assert torch.equal(dequantise(parts, bits, group, axis)[spread], numbers[spread]), (
        "constant groups come back exactly"
    )


@over("kivi", lambda case: case.raises)
def test_what_kivi_cannot_pack_is_refused_or_stays_as_it_is(case: Case) -> None:
    bits, group, (_, _, tokens, dim) = (
        *(case.params[name] for name in ("bits", "group_size")),
        case.data["inputs"]["x"]["shape"],
    )
    if case.params["kind"] == "key" and bits == 2:  # a group that is not full
        assert Quantised("kivi", "channel", bits, group, group).borders(tokens, tokens)[0] == 0
        return
    with pytest.raises(ConfigError, match="use 2, 4 or 8|does not divide the 30 numbers"):
        Quantised("kivi", "channel", bits, group, group).check_model(dim)


@over("kivi", lambda case: "schedule" in case.id)
def test_what_kivi_packs_when_and_what_it_attends_to_are_as_in_its_model(case: Case) -> None:
    params, tokens = case.params, case.params["T"]
    storage = Quantised("kivi", "channel", params["k_bits"], params["group_size"], params["residual_length"])
    queries, keys, values = (case.input(name) for name in "qkv")
    entries = stored(LayerKV(keys[0, :, :tokens], values[0, :, :tokens]), storage, None)
    (bucket,) = entries.buckets([entries], Joining(0, params["steps"]))
    assert isinstance(bucket, StoredBucket)
    rows, outputs = [row(bucket, tokens)], []
    for place in range(tokens, tokens + params["steps"]):
        new = slice(place, place + 1)
        outputs.append(bucket.attend(queries[:, :, new], keys[:, :, new], values[:, :, new], params["D"] ** -0.5, 0))
        bucket.advance()
        bucket.settle(place + 1)
        rows.append(row(bucket, place + 1))
    assert rows == case.expect["rows"]
    found = torch.cat(outputs).transpose(1, 2).reshape(params["steps"], -1)
    golden = case.array("attn_out")[-params["steps"] :]
    tolerance = SCORES if found.dtype == torch.float32 else 2e-3
    assert_near(found, golden, tolerance)
    for name, part, axis in (("key", bucket.keys.parts, -2), ("value", bucket.values.parts, -1)):
        if not part:
            continue
        packed = words(part[0], axis)
        if name == "key":
            assert torch.equal(packed.transpose(-1, -2), case.array("key_packed_T"))
            part = (part[0], *(each.transpose(-1, -2) for each in part[1:]))
        else:
            assert torch.equal(packed, case.array("value_packed"))
        assert torch.equal(part[1], case.array(f"{name}_scale"))
        assert torch.equal(part[2], case.array(f"{name}_zero"))


def row(bucket: StoredBucket, seen: int) -> list[int]:
    """Packed and other keys and values, all entries, and their bytes, as the golden rows have them."""
    keys, values = bucket.keys, bucket.values
    packed = [sum(part.nbytes for part in one.parts) for one in (keys, values)]
    counts = [keys.count, keys.rest.shape[2], values.count, values.rest.shape[2], seen]
    return [*counts, packed[0], keys.rest.nbytes, packed[1], values.rest.nbytes]


@over("quantcache", lambda case: case.params["backend"] == "quanto" and not case.raises)
def test_codes_scales_and_values_are_those_of_quanto(case: Case) -> None:
    params, tokens = case.params, case.params["T"]
    for name in ("key", "value"):
        if params[f"axis_{name}"] != 0 or case.expect["rows"][-1][0] != tokens:
            continue
        numbers = case.input(name[0])[:, :, :tokens]
        runs = numbers.reshape(1, -1, params["q_group_size"])  # axis 0 of quanto: runs in memory
        packed, scale, zero = quantise(runs, params["nbits"], params["q_group_size"], -1)
        assert torch.equal(unpack(packed, params["nbits"], -1)[0], case.array(f"{name}_codes"))
        assert torch.equal(scale[0], case.array(f"{name}_scale"))
        assert torch.equal(-zero[0], case.array(f"{name}_shift"))
        values = dequantise((packed, scale, zero), params["nbits"], params["q_group_size"], -1)
        assert torch.equal(values.reshape(numbers.shape), case.array(f"{name}_dequant"))


@over("think", lambda case: not case.raises and case.params["ratio"] > 0)
def test_channel_scores_and_removed_channels_are_those_of_think(case: Case) -> None:
    params, expect = case.params, case.expect
    storage = PrunedChannels("think", params["ratio"], params["recent_size"], 32, "kept")
    queries, keys = case.input("q")[0], case.input("k")[0]
    state = LayerState(queries, keys, keys, 0, 1, 1.0, torch.float32)
    seen = storage.look(state)[:, None]  # a cache of query heads
    kept = keys.repeat_interleave(len(queries) // len(keys), dim=0)
    if "kept_sorted" in expect:  # after an eviction
        kept = kept.take_along_dim(torch.tensor(expect["kept_sorted"])[:, :, None], dim=1)
    assert_near(storage.scores(kept[None], seen).flatten(), case.array("channel_score").flatten())
    border, _ = storage.borders(kept.shape[1], kept.shape[1])
    packed, channels = storage.first_keys(kept[None], border, seen)
    removed = [sorted(set(range(params["D"])) - set(map(int, head))) for head in channels[0, :, 0]]
    assert removed == expect["pruned_channels"]
    assert list(packed.shape) == expect["pruned_key_shape"]
    back = storage.unpack_keys((packed, channels), kept)
    assert torch.equal(back[0].gather(-1, channels[0].long().expand_as(packed[0])), packed[0])
    assert (back[0].gather(-1, torch.tensor(removed)[:, None].expand(-1, border, -1)) == 0).all()


@kvpress.over("think_w32")
def test_removed_channels_are_those_of_kvpress(which: str, variant: str) -> None:
    cases = kvpress.cases(which, variant)
    assert cases
    for case in cases:
        storage = PrunedChannels("think", case.level, 0, case.settings["window_size"], "prompt")
        for state, gone in zip(kvpress.states(case.model, case.tokens), case.kept, strict=True):
            heads, tokens, dim = state.keys.shape
            seen = storage.look(state).unflatten(0, (heads, -1))
            _, channels = storage.first_keys(state.keys[None], tokens, seen)
            kept = np.zeros((heads, dim), dtype=bool)
            np.put_along_axis(kept, channels[0, :, 0].numpy().astype(np.int64), True, axis=1)
            assert (kept == ~gone).all(), case.id
