"""Several values of a knob: a method each, with a label of its own, through all that follows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from omegaconf import OmegaConf

import kvgauge as package
from harness.config.build import composed
from harness.config.methods import build_methods
from harness.config.recorded import recorded_method
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


# --- wrapped methods


def composed_methods(*words: str) -> list[Any]:
    """The methods of a run's configuration."""
    nodes = cast("dict[str, Any]", OmegaConf.to_container(composed(*words).method, resolve=True))
    return build_methods(nodes)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method=adakv"], [("adakv", "snapkv", 8)]),
        (["method=adakv", "method.adakv.scorer=h2o"], [("adakv", "h2o", 8)]),
        (["method=adakv", "method.adakv.scorer={snapkv:{window:16}}"], [("adakv", "snapkv", 16)]),
        (
            ["method=adakv", "method.adakv.scorer=[snapkv,h2o]"],
            [("adakv_snapkv", "snapkv", 8), ("adakv_h2o", "h2o", 8)],
        ),
        (
            ["method=adakv", "method.adakv.scorer={snapkv:{window:[8,32]}}"],
            [("adakv_snapkv_w8", "snapkv_w8", 8), ("adakv_snapkv_w32", "snapkv_w32", 32)],
        ),
        (
            ["method=adakv", "method.adakv.scorer=[snapkv,{snapkv:{window:16,label:sixteen}}]"],
            [("adakv_snapkv", "snapkv", 8), ("adakv_sixteen", "sixteen", 16)],
        ),
        (
            ["method=adakv", "method.adakv.scorer=[snapkv,h2o]", "method.adakv.floor=[0.1,0.3]"],
            [
                ("adakv_snapkv_f0.1", "snapkv", 8),
                ("adakv_snapkv_f0.3", "snapkv", 8),
                ("adakv_h2o_f0.1", "h2o", 8),
                ("adakv_h2o_f0.3", "h2o", 8),
            ],
        ),
    ],
)
def test_a_wrapper_wraps_the_methods_that_its_scorer_names(words: list[str], expected: list[Any]) -> None:
    made = composed_methods(*words)
    assert [(method.label, method.base.label, method.base.window) for method in made] == expected


def test_a_wrapped_method_has_the_knobs_that_the_run_sets_for_it() -> None:
    words = ("method=[snapkv,adakv]", "method.snapkv.window=16", "method.snapkv.label=mine")
    plain, wrapper = composed_methods(*words)
    assert (plain.label, plain.window) == ("mine", 16)
    assert (wrapper.base.label, wrapper.base.window) == ("snapkv", 16)
    *_, wrapper = composed_methods(*words, "method.adakv.scorer={snapkv:{window:32}}")
    assert wrapper.base.window == 32


def test_a_wrapper_may_wrap_one_that_gives_budgets_if_it_gives_none() -> None:
    (method,) = composed_methods("method=criticalkv", "method.criticalkv.scorer={adakv:{scorer:h2o}}")
    assert (method.base.label, method.base.base.label) == ("adakv", "h2o")
    assert method.allocation == method.base.allocation


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        ("adakv", r"method\.adakv\.scorer=adakv wraps a method in itself: name another one"),
        ("{criticalkv:{scorer:adakv}}", r"method\.criticalkv\.scorer=adakv wraps a method in itself"),
        ("snapk", r"method\.adakv\.scorer=snapk is not there: did you mean snapkv\?"),
        ("all", r"method\.adakv\.scorer=all stands for other files: name one method"),
        ("fullkv", r"scorer=fullkv \(method=adakv\) scores no entry"),
        ("pyramidkv", r"scorer=pyramidkv \(method=adakv\) has budgets of its own"),
        ("adakv_kvpress", r"scorer=adakv_kvpress \(method=adakv\) has budgets of its own"),
        ("defensivekv", r"scorer=defensivekv \(method=adakv\) has scores that depend on the budget"),
        ("dms", r"scorer=dms \(method=adakv\) is a wrapper with scores of its own"),
        ("finch", r"scorer=finch \(method=adakv\) turns kept keys to new positions, which would be lost"),
        ("{rerotated:{scorer:h2o}}", r"scorer=rerotated \(method=adakv\) turns kept keys to new positions"),
        ("3", r"method\.adakv\.scorer=3 names no method: give a name"),
        ("{snapkv:{},h2o:{}}", r"method\.adakv\.scorer=.* names no method"),
        ("[]", r"method\.adakv\.scorer=\[\] has no value"),
        ("{snapkv:{window:0}}", r"method\.adakv\.scorer=snapkv: window=0 is not a whole number"),
        ("{snapkv:{widow:8}}", r"unexpected keyword argument 'widow'"),
        ("{snapkv:{_target_:os.system}}", r"method\.adakv\.scorer=.* names no method"),
    ],
)
def test_what_cannot_be_wrapped_is_refused_in_one_line(scorer: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        composed_methods("method=adakv", f"method.adakv.scorer={scorer}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["method=block", "method.block.scorer=snapkv"],
            r"scorer=snapkv .* always keeps its last 8 tokens",
        ),
        (
            ["method=dms", "method.dms.sliding_window=4"],
            r"sliding_window=4 .* is below the window=8 of",
        ),
        (["method=adakv", "method.adakv.floor=1.5"], r"floor=1\.5 is not a number of 0 to 1"),
        (
            ["method=entropy_chunkkv", "method.entropy_chunkkv.chunk_length=4"],
            r"low_entropy_chunk_length=4 .* not below",
        ),
        (["method=chunkkv", "method.chunkkv.scorer=entropy_chunkkv"], r"is a wrapper with scores of its own"),
        (
            ["method=criticalkv", "method.criticalkv.scorer={rerotated:{scorer:h2o}}"],
            r"turns kept keys to new positions",
        ),
    ],
)
def test_a_wrapper_refuses_knobs_that_do_not_fit(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        composed_methods(*words)


def test_a_user_s_own_method_can_be_wrapped_and_rebuilt_from_its_records(
    kvgauge: Command, prompts_file: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    (own / "method").mkdir(parents=True)
    (own / "method/mine.yaml").write_text("# @package method.mine\n_target_: mine.Mine\nlabel: mine\nwindow: 3\n")
    (own / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from harness.compression.method import Method\n"
        "from harness.compression.scorers import ColumnSums, Window\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(Method):\n    window: Window\n\n"
        "    @property\n    def scorer(self):\n        return ColumnSums(self.window, True)\n"
    )
    results = tmp_path / "results"
    words = ("task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2", "budget=24", f"method_path={own}")
    words = (*words, "selection.granularity=kv_head", f"results_dir={results}")
    done = kvgauge("method=[fullkv,adakv,dms]", "method.adakv.scorer=[mine,h2o]", "method.dms.scorer=mine", *words)
    assert done.code == 0, done.err
    recorded = json.loads((results / "tiny/tokens/adakv_mine-24/manifest.json").read_text())["settings"]["method"]
    assert {name: recorded["scorer"][name] for name in ("class", "label", "window")} == {
        "class": "mine.Mine",
        "label": "mine",
        "window": 3,
    }
    assert "source_sha256" in recorded["scorer"]
    assert json.loads((results / "tiny/tokens/dms-own/manifest.json").read_text())["cell"]["budget"] == "own"
    assert "scorer=h2o(causal=True, window=8)" in (results / "report/index.html").read_text()
    verified = kvgauge("verify", str(results), "--method-path", str(own))
    assert verified.code == 0, verified.out + verified.err
    assert recorded_method(recorded, "adakv_mine", {recorded["class"]}) == "mine.Mine", "a wrapped class is known too"
    assert kvgauge("score", str(results)).code == 0
    again = kvgauge("method=adakv", "method.adakv.scorer=[h2o]", *words)
    assert again.code == 0 and "new records: 0," in again.out
