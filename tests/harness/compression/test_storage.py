"""Storages: what packing loses at most, what packed codes are, and which settings cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from harness.compression.budget import parse_budgets
from harness.compression.channel_storage import PrunedChannels
from harness.compression.grid import make_grid
from harness.compression.packing import Axis, Bits, dequantise, pack, quantise, unpack
from harness.compression.quantised_storage import Float8, Quantised
from harness.compression.storage import EXACT, Storage
from harness.config.catalog import choice, choices
from harness.config.methods import build_storages
from harness.errors import ConfigError
from methods.fullkv import FullKV
from methods.snapkv import SnapKV

AXES = st.sampled_from([-2, -1])
BITS = st.sampled_from([2, 4, 8])


def storages(names: Sequence[str], *words: str) -> list[Storage]:
    """The storages of some files of ``conf/storage``, with knobs set as on the command line."""
    nodes: dict[str, dict[str, Any]] = {name: yaml.safe_load(choice("storage", name).text) for name in names}
    for word in words:
        knob, _, value = word.partition("=")
        nodes[knob.split(".")[0]][knob.split(".")[1]] = yaml.safe_load(value)
    return build_storages(nodes)


def storage(name: str) -> Storage:
    """A storage of ``conf/storage`` as it is there."""
    (made,) = storages([name])
    return made


@given(bits=BITS, axis=AXES, shape=st.tuples(*[st.integers(1, 3)] * 4), seed=st.integers(0, 99))
def test_packed_codes_unpack_to_the_same(bits: Bits, axis: Axis, shape: tuple[int, ...], seed: int) -> None:
    rows, heads, tokens, dim = shape
    each = 8 // bits
    sizes = (rows, heads, tokens * each, dim) if axis == -2 else (rows, heads, tokens, dim * each)
    codes = torch.randint(2**bits, sizes, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    packed = pack(codes, bits, axis)
    assert packed.numel() * each == codes.numel()
    assert torch.equal(unpack(packed, bits, axis), codes)


@settings(max_examples=60)
@given(
    bits=BITS,
    axis=AXES,
    group=st.sampled_from([4, 8]),
    numbers=arrays.arrays(np.float32, (1, 2, 8, 8), elements=st.floats(-1000, 1000, width=32)),
)
def test_a_number_is_off_by_half_a_step_of_its_group_at_most(
    bits: Bits, axis: Axis, group: int, numbers: NDArray[np.float32]
) -> None:
    exact = torch.from_numpy(numbers).double()
    parts = quantise(exact, bits, group, axis)
    step = parts[1].repeat_interleave(group, dim=axis)
    off = (dequantise(parts, bits, group, axis) - exact).abs()
    assert (off <= step / 2 * (1 + 1e-9) + 1e-9).all()


@given(arrays.arrays(np.float32, (1, 1, 4, 4), elements=st.floats(-2000, 2000, width=32)))
def test_an_eight_bit_float_is_off_by_a_sixteenth_at_most_and_ends_at_448(numbers: NDArray[np.float32]) -> None:
    fp8, exact = Float8("fp8"), torch.from_numpy(numbers)
    back = fp8.unpack_values(fp8.pack_values(exact), exact)
    inside = exact.clamp(-448, 448)
    # Three bits of mantissa; below 2**-6 steps of 2**-9.
    assert ((back - inside).abs() <= torch.maximum(inside.abs() / 16, torch.tensor(2.0**-10))).all()


def test_a_number_that_is_not_finite_does_not_come_back_as_one_that_is() -> None:
    for wrong in (torch.nan, torch.inf, -torch.inf):
        numbers = torch.ones(1, 1, 4, 4)
        numbers[0, 0, 1, 1] = wrong
        assert not dequantise(quantise(numbers, 4, 4, -1), 4, 4, -1)[0, 0, 1].isfinite().any()


@pytest.mark.parametrize("name", [entry.name for entry in choices("storage")])
def test_every_storage_says_what_it_is_and_what_its_knobs_are(name: str) -> None:
    entry = choice("storage", name)
    assert storage(name).label == name
    assert entry.about
    for knob in entry.knobs:
        before = entry.text.split(f"\n{knob}:")[0].splitlines()[-1]
        assert before.startswith("#"), f"{knob} of {name} has no comment"


def test_a_knob_with_several_values_makes_several_storages() -> None:
    found = storages(["exact", "kivi2"], "kivi2.residual=[32,64]")
    assert [each.label for each in found] == ["exact", "kivi2_r32", "kivi2_r64"]


def test_a_grid_has_every_method_in_every_storage_at_every_budget_and_keeps_the_labels_of_exact_cells() -> None:
    snapkv = SnapKV("snapkv", 8, 5, "maxpool")
    grid = make_grid([FullKV("fullkv"), snapkv], parse_budgets([32, "12%"]), 0, [EXACT, storage("int4")])
    assert [variant.cell.name for variant in grid] == [
        "fullkv-full",
        "fullkv+int4-full",
        "snapkv-32",
        "snapkv-12%",
        "snapkv+int4-32",
        "snapkv+int4-12%",
    ]
    drawn = make_grid([FullKV("fullkv")], parse_budgets([32]), 2, [EXACT, storage("int4")])
    assert [variant.cell.label for variant in drawn] == ["fullkv", "fullkv_greedy", "fullkv+int4"]


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "a width that no code has": (("kivi2.bits=3",), "storage.kivi2.bits=3 is unknown: use 2, 4 or 8"),
    "a residual that is no multiple of the group": (("kivi2.residual=100",), "is no multiple of group=32"),
    "no residual with keys per channel": (("kivi2.residual=0",), "is no multiple of group=32"),
    "a negative residual": (("int4.residual=-1",), "is not a whole number of 0 or more"),
    "a group that does not fill bytes": (("kivi2.group=30",), "does not fill bytes with 2 bits: use a multiple of 4"),
    "no group with keys per channel": (("kivi4.group=null",), "keys=channel needs tokens of a group"),
    "a word that keys are not": (("int8.keys=head",), "storage.int8.keys=head is unknown: use channel or token"),
    "a share above all channels": (("think.ratio=1.5",), "is no share between 0 and 1"),
    "no channel to remove": (("think.ratio=0",), "is no share between 0 and 1"),
    "no query to look": (("think.queries=0",), "is not a whole number of 1 or more"),
    "keys that nobody has": (("think.keys=all",), "storage.think.keys=all is unknown: use kept or prompt"),
    "no value": (("kivi2.bits=[]",), "storage.kivi2.bits=[] has no value"),
    "a label that is no folder": (("kivi2.label=a/b",), "cannot name a folder"),
    "two of one label": (("int4.label=kivi2", "kivi2.bits=2"), "stands for two methods or storages"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_setting_is_one_line_with_its_name(name: str) -> None:
    words, said = BAD[name]
    names = list(dict.fromkeys(word.partition(".")[0] for word in words))
    with pytest.raises(ConfigError) as error:
        make_grid([FullKV("fullkv")], parse_budgets([32]), storages=storages(names, *words))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "head_dim", "said"),
    [
        (Quantised("kivi2", "channel", 2, 32, 128), 48, "group=32 does not divide the 48 numbers"),
        (Quantised("int2", "token", 2, None, 0), 30, "group=null does not divide the 30 numbers"),
        (PrunedChannels("think", 0.01, 0, 32, "kept"), 64, "removes none of 64 channels: use 0.016 or more"),
    ],
)
def test_a_model_whose_heads_do_not_fit_is_refused(wrong: Storage, head_dim: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        wrong.check_model(head_dim)
    Quantised("kivi2", "channel", 2, 32, 128).check_model(96)
    PrunedChannels("think", 0.016, 0, 32, "kept").check_model(64)


def test_a_storage_of_no_storages_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"storage=\[\] names no storage"):
        make_grid([FullKV("fullkv")], parse_budgets([32]), storages=())


def test_channels_are_those_of_the_largest_scores_and_ties_go_to_the_first() -> None:
    think = PrunedChannels("think", 0.5, 0, 32, "kept")
    keys, seen = torch.ones(1, 1, 3, 4), torch.tensor([[[1.0, 3.0, 1.0, 3.0], [1.0, 3.0, 1.0, 2.0]]])
    packed, channels = think.first_keys(keys, 3, seen)
    assert channels.flatten().tolist() == [1, 3]
    assert think.unpack_keys((packed, channels), keys)[0, 0, 0].tolist() == [0, 1, 0, 1]
    _, tied = think.first_keys(keys, 3, torch.ones(1, 1, 4))
    assert tied.flatten().tolist() == [0, 1]
