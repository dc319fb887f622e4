"""Several values of a knob: a method each, with a label of its own, through all that follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

import kvgauge as package
from harness.config.methods import build_methods
from harness.errors import ConfigError
from tests.conftest import Command


@dataclass(frozen=True)
class Own:
    """A user's own method, with knobs of many types."""

    label: str
    layers: Sequence[int] | None = None
    layer: int = 0
    share: float = 0.5
    on: bool | None = True
    max_tokens: int = 1
    max_heads: int = 1
    way: Literal["a", "b c"] = "a"


def labels(**knobs: Any) -> list[str]:
    return [method.label for method in own(**knobs)]


def own(**knobs: Any) -> list[Any]:
    return build_methods({"own": {"_target_": f"{__name__}.Own", "label": "own", **knobs}})


def test_a_knob_with_several_values_makes_a_method_for_each_and_knobs_are_crossed() -> None:
    knobs = {"window": [8, 32], "kernel": [5, 7], "pooling": "maxpool"}
    made = build_methods({"snapkv": {"_target_": "methods.snapkv.SnapKV", "label": "snapkv", **knobs}})
    assert [(method.label, method.window, method.kernel) for method in made] == [  # type: ignore[attr-defined]
        ("snapkv_w8_k5", 8, 5),
        ("snapkv_w8_k7", 8, 7),
        ("snapkv_w32_k5", 32, 5),
        ("snapkv_w32_k7", 32, 7),
    ]


def test_one_value_has_the_plain_label_and_a_list_of_one_says_which() -> None:
    assert labels() == ["own"]
    assert labels(layer=[3], layers=None, label="mine") == ["mine_layer3"]


def test_a_field_that_is_a_list_by_its_type_stays_one() -> None:
    assert [method.layers for method in own(layers=[1, 2])] == [[1, 2]]


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        # As few letters as tell a knob from the others; `layer` begins `layers`, so all of it.
        ({"layer": [1, 2], "layers": None}, ["own_layer1", "own_layer2"]),
        ({"share": [0.25, 1e-5]}, ["own_s0.25", "own_s1e-05"]),
        ({"on": [True, False, None]}, ["own_otrue", "own_ofalse", "own_onull"]),
        ({"max_tokens": [1, 2], "max_heads": 3}, ["own_max_t1", "own_max_t2"]),
        ({"way": ["a", "b c"]}, ["own_wa", "own_wb-c"]),
        ({"layer": [-1, -1, 2]}, ["own_l-1", "own_l2"]),
    ],
)
def test_a_label_has_the_beginning_of_the_knob_and_the_value(knobs: dict[str, Any], expected: list[str]) -> None:
    assert labels(**knobs) == expected


def test_no_value_is_refused_and_a_wrong_one_by_its_method() -> None:
    with pytest.raises(ConfigError, match=r"method\.own\.layer=\[\] has no value"):
        own(layer=[])
    with pytest.raises(ConfigError, match=r"method=snapkv: window=0 is not a whole number"):
        node = {"_target_": "methods.snapkv.SnapKV", "label": "snapkv", "kernel": 7, "pooling": "maxpool"}
        build_methods({"snapkv": {**node, "window": [8, 0]}})


def test_values_are_cells_of_one_grid_and_more_values_compute_what_is_missing(
    kvgauge: Command, prompts_file: Path, tmp_path: Path
) -> None:
    words = ("method=snapkv", "budget=[48,64]", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2")
    words = (*words, f"results_dir={tmp_path}")
    done = kvgauge("method.snapkv.window=[8,32]", *words)
    assert done.code == 0, done.err
    assert [line.split()[0] for line in done.out.splitlines() if line.startswith("snapkv")] == [
        "snapkv_w8",
        "snapkv_w8",
        "snapkv_w32",
        "snapkv_w32",
    ]
    again = kvgauge("method.snapkv.window=[8,16,32]", *words)
    assert again.code == 0 and "new records: 8," in again.out
    page = (tmp_path / "report/index.html").read_text()
    assert all(f"snapkv_w{window}" in page for window in (8, 16, 32))
    for command in ("score", "verify", "status"):
        assert kvgauge(command, str(tmp_path)).code == 0


def test_a_changed_knob_is_refused_with_a_remedy_that_works(
    kvgauge: Command, prompts_file: Path, tmp_path: Path
) -> None:
    words = ("method=snapkv", "budget=48", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2")
    words = (*words, f"results_dir={tmp_path}")
    assert kvgauge(*words).code == 0
    refused = kvgauge("method.snapkv.window=32", *words)
    assert refused.code == 5 and "give method.snapkv.window=[32], a list, for a cell of its own" in refused.err
    assert kvgauge("method.snapkv.window=[32]", *words).code == 0
    settings = json.loads((tmp_path / "tiny/tokens/snapkv_w32-48/manifest.json").read_text())["settings"]
    assert settings["method"]["window"] == 32


def test_python_takes_several_values_too() -> None:
    settings = {"task.lengths": [300], "task.depths": [50], "method.snapkv.window": [8, 32]}
    made = package.run("tiny", "needle", "snapkv", 64, settings=settings)
    assert made.table()["method"].tolist() == ["snapkv_w8", "snapkv_w32"]
