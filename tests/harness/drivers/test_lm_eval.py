"""lm-evaluation-harness through kvgauge, beside its own model ``hf``; ``make develop`` leaves the extra out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Command

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install -e '.[lm-eval]'")

import datasets
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.drivers.asked import opened
from harness.drivers.lm_eval import KVGauge
from harness.errors import ConfigError

TASKS = ["magic_generate", "magic_choice", "magic_likelihood"]
GRID = {"pretrained": "tiny", "method": "[fullkv,snapkv]", "budget": [48, 128], "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tasks' files are named from the project's root, and what is read of them is kept in a folder of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        patch.setattr(sys, "argv", sys.argv)
        yield


def evaluated(model: Any, **more: Any) -> dict[str, Any]:
    found = simple_evaluate(
        model=model,
        tasks=TASKS,
        task_manager=TaskManager(include_path="examples/lm_eval", include_defaults=False),
        bootstrap_iters=0,
        limit=2,
        **more,
    )
    assert found is not None
    return dict(found)


@pytest.fixture(scope="module")
def hf() -> HFLM:
    model = AutoModelForCausalLM.from_pretrained("models/tiny", dtype="float32")
    return HFLM(model, tokenizer=AutoTokenizer.from_pretrained("models/tiny"))


@pytest.fixture(scope="module")
def results(hf: HFLM) -> dict[str, dict[str, Any]]:
    """Of lm-eval's own model and of each cell."""
    cells = ("fullkv-full", "snapkv-48", "snapkv-128")
    ours = {cell: evaluated("kvgauge", model_args={**GRID, "cell": cell}) for cell in cells}
    return {"hf": evaluated(hf), **ours}


def answers(found: dict[str, Any], task: str) -> list[Any]:
    return [sample["resps"] for sample in found["samples"][task]]


def test_the_full_cache_equals_the_model_hf_on_every_kind_of_task(results: dict[str, dict[str, Any]]) -> None:
    hf, ours = results["hf"], results["fullkv-full"]
    assert ours["results"].keys() == hf["results"].keys() == set(TASKS)
    assert answers(ours, "magic_generate") == answers(hf, "magic_generate")
    for task in TASKS[1:]:
        for one, other in zip(answers(ours, task), answers(hf, task), strict=True):
            for ((mine, greedy),), ((theirs, stock),) in zip(one, other, strict=True):
                assert mine == pytest.approx(theirs, abs=1e-4) and greedy == stock
    assert ours["results"]["magic_generate"]["exact_match,number"] == 1
    assert ours["results"]["magic_choice"]["acc,none"] == 1


def test_compressed_caches_answer_otherwise_and_say_what_they_kept(results: dict[str, dict[str, Any]]) -> None:
    hf, few, more = results["hf"], results["snapkv-48"], results["snapkv-128"]
    for task in TASKS:
        assert answers(few, task) != answers(hf, task) and answers(few, task) != answers(more, task)
    assert few["results"]["magic_generate"]["exact_match,number"] < 1
    about = few["config"]["kvgauge"]
    assert (about["label"], about["budget"], about["method"]["window"]) == ("snapkv", "48", 8)
    assert about["kept"]["contexts"] == about["kept"]["compressed"] == 4  # two prompts, and as contexts two
    assert results["fullkv-full"]["config"]["kvgauge"]["kept"]["compressed"] == 0


def test_the_cells_of_a_grid_share_a_model_and_all_it_computed(results: dict[str, dict[str, Any]]) -> None:
    assert opened.cache_info().misses == 1
    grid = KVGauge(**GRID, cell="snapkv-48")._asked.grid
    forwards: list[object] = []
    handle = grid.engine.model.register_forward_pre_hook(lambda *_: forwards.append(1))
    try:
        again = evaluated("kvgauge", model_args={**GRID, "cell": "snapkv-48"})
    finally:
        handle.remove()
    assert not forwards and again["samples"].keys() == results["snapkv-48"]["samples"].keys()


def asked(kind: str, *arguments: Any) -> list[Instance]:
    return [Instance(kind, {}, each, 0) for each in arguments]


def test_texts_become_tokens_as_in_hf_and_what_is_too_long_loses_its_beginning(hf: HFLM) -> None:
    long = "The harbour is quiet and the mill is closed. " * 8
    pairs = [("", "The harbour"), ("", "x"), ("The mill ", " is"), (long, " closed until noon"), (long, " closed")]
    prompts = [(long, {"until": ["\n"], "max_gen_toks": 9}), ("The", {"until": "mill", "max_gen_toks": 9})]
    for arguments in ({}, {"max_length": 40}, {"add_bos_token": False}, {"prefix_token_id": 5}):
        (ours, theirs) = (
            KVGauge(pretrained="tiny", method="fullkv", budget="full", device="cpu", **arguments),
            HFLM(hf.model, tokenizer=hf.tokenizer, **arguments),
        )
        one, other = (model.loglikelihood(asked("loglikelihood", *pairs)) for model in (ours, theirs))
        for (mine, greedy), (stock, is_stock) in zip(one, other, strict=True):
            assert mine == pytest.approx(stock, abs=1e-4) and greedy == is_stock
        assert ours.generate_until(asked("generate_until", *prompts)) == theirs.generate_until(
            asked("generate_until", *prompts)
        )


def test_drawn_answers_come_from_compressed_caches_too_and_repeats_differ() -> None:
    model = KVGauge(pretrained="tiny", method="snapkv", budget=48, device="cpu")
    settings = {"do_sample": True, "temperature": 2.0, "max_gen_toks": 8, "until": []}
    texts = model.generate_until(asked("generate_until", *[("The harbour is quiet. " * 9, settings)] * 3))
    assert len(set(texts)) == 3
    assert texts == model.generate_until(asked("generate_until", *[("The harbour is quiet. " * 9, settings)] * 3))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"method": None}, "method is not given"),
        ({"budget": None}, "budget is not given"),
        ({"peft": "x"}, "peft=x is no argument"),
        ({"trust_remote_code": True}, "no code of a checkpoint is run"),
        ({"selection.after": "context"}, "which these tasks do not say"),
        ({"cell": "h2o-48"}, "cell=h2o-48 is not in the grid: use snapkv-48"),
        ({"budget": [48, 64]}, "the grid has 2 cells, snapkv-48, snapkv-64: name one"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(arguments: dict[str, Any], told: str) -> None:
    given = {"pretrained": "tiny", "method": "snapkv", "budget": 48, "device": "cpu", **arguments}
    with pytest.raises(ConfigError, match=told) as error:
        KVGauge(**{name: value for name, value in given.items() if value is not None})
    assert "\n" not in str(error.value)


def test_requests_that_cannot_be_answered_honestly_are_refused() -> None:
    model = KVGauge(pretrained="tiny", method="snapkv", budget=48, device="cpu")
    with pytest.raises(ConfigError, match="no context that could be compressed"):
        model.loglikelihood_rolling(asked("loglikelihood_rolling", ("a text",)))
    for settings, told in (({"num_beams": 2}, "num_beams=2"), ({"max_gen_toks": 5000}, "leaves no room for a prompt")):
        with pytest.raises(ConfigError, match=told):
            model.generate_until(asked("generate_until", ("a text", settings)))


@pytest.mark.slow
def test_the_command_writes_a_file_for_each_cell_and_cells_that_fail_cost_the_others_nothing(
    kvgauge: Command, tmp_path: Path
) -> None:
    words = ["--include_path", "examples/lm_eval", "--tasks", "magic_choice", "--limit", "2", "--device", "cpu"]
    grid = "pretrained=tiny,method=[fullkv,snapkv],budget=[2%,48]"
    done = kvgauge("lm_eval", "--model_args", grid, *words, "--output_path", str(tmp_path / "out"))
    assert done.code == 6 and "1 of 3 cells have no results" in done.err and done.err.count("\n") >= 1
    assert "snapkv-2% has no results: snapkv-2%: 2% of a prompt of" in done.out
    assert "snapkv-48: entries were dropped of 2 of 2 contexts" in done.out
    found = {path.relative_to(tmp_path / "out").parts[0]: path for path in (tmp_path / "out").rglob("results_*.json")}
    assert set(found) == {"fullkv-full", "snapkv-48"}
    assert json.loads(found["snapkv-48"].read_text())["config"]["kvgauge"]["label"] == "snapkv"
    rolling = tmp_path / "rolling.yaml"
    task = (ROOT / "examples/lm_eval/magic_likelihood.yaml").read_text().replace("magic_likelihood", "rolling")
    metric = "metric_list:\n  - {metric: word_perplexity}\n"
    rolling.write_text(task.partition("metric_list")[0].replace(": loglikelihood", ": loglikelihood_rolling") + metric)
    words[1], words[3] = str(tmp_path), "rolling"
    refused = kvgauge("lm_eval", "--model_args", grid, *words)
    assert refused.code == 2 and "rolling asks for the perplexity of whole texts" in refused.err
    assert kvgauge("lm_eval", "--model", "hf", "--tasks", "magic_choice").code == 2
    words[3] = "nope"
    unknown = kvgauge("lm_eval", "--model_args", grid, *words)
    assert unknown.code == 2 and "lm-eval cannot load its tasks (Tasks not found: nope)" in unknown.err
