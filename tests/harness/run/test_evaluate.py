"""A text that its task cannot score: an error record that keeps it, in a run, in an import and in a new scoring."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import AutoTokenizer

from harness.api import run
from harness.config.build import build, task_config
from harness.run.texts import generated_text
from tasks.longbench.suite import LongBench
from tasks.needle.task import Needle
from tests.conftest import ROOT, Command
from tests.harness.folders import cells, records

FIXTURES = ROOT / "tests/fixtures/longbench"
RUN = ("method=fullkv", "task.lengths=[300]", "task.depths=[0,50,100]")


def break_scoring(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Let the needle's score of example 300-50 raise an exception, or return a value."""
    score = Needle.score

    def broken(task: Needle, example: Any, text: Any) -> Any:
        if example.id != "300-50":
            return score(task, example, text)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Needle, "score", broken)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (KeyError("paragraph"), "KeyError: 'paragraph'"),
        (RecursionError("too\ndeep"), "RecursionError: too"),
        ({"contains_answer": 1.0, "word_overlap": float("nan"), "rouge1_x10": 0.0}, "word_overlap is nan"),
        ({"contains_answer": 1.0}, "word_overlap is None and not a number"),
        (None, "TypeError"),
    ],
)
def test_a_score_that_raises_costs_neither_the_text_nor_the_run(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, reason: str
) -> None:
    with monkeypatch.context() as broken:
        break_scoring(broken, answer)
        done = kvgauge(*RUN, f"results_dir={tmp_path}")
    assert done.code == 1, done.err
    assert "errors of fullkv-full: 1, the first in example 300-50" in done.out.replace("\n", " ")
    cell = cells(tmp_path, "needle")["fullkv-full"]
    by_id = {record["example_id"]: record for record in records(cell)}
    assert reason in by_id["300-50"]["error"] and "kvgauge score" in by_id["300-50"]["error"]
    assert by_id["300-50"]["text"] and by_id["300-50"]["tokens"] and by_id["300-50"]["scores"] == {}
    assert by_id["300-0"]["scores"] and by_id["300-100"]["scores"]

    again = kvgauge("score", str(tmp_path))
    assert again.code == 0, again.err
    assert "scored 3 records again: 1 changed" in again.out
    mended = {record["example_id"]: record for record in records(cell)}["300-50"]
    assert mended["error"] is None and mended["text"] == by_id["300-50"]["text"] and mended["scores"]
    assert json.loads((cell / "scores.json").read_text())["errors"] == 0


def test_scoring_again_scores_the_others_before_it_names_what_it_cannot(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kvgauge(*RUN, f"results_dir={tmp_path}").code == 0
    cell = cells(tmp_path, "needle")["fullkv-full"]
    before = {record["example_id"]: record for record in records(cell)}
    file = cell / "records.0.jsonl"
    changed = [json.loads(line) for line in file.read_text().splitlines()]
    for record in changed:
        record["scores"] = dict.fromkeys(record["scores"], 0.25)
    file.write_text("".join(json.dumps(record) + "\n" for record in changed))
    break_scoring(monkeypatch, ValueError("no such answer"))
    failed = kvgauge("score", str(tmp_path))
    assert failed.code == 5 and failed.err.count("\n") == 1
    assert (
        "1 of 3 records keep what they had, the first: example '300-50' of task needle cannot be scored" in failed.err
    )
    assert "scored 2 records again: 2 changed" in failed.out
    after = {record["example_id"]: record for record in records(cell)}
    assert after["300-0"] == before["300-0"] and after["300-100"] == before["300-100"]
    assert after["300-50"]["text"] == before["300-50"]["text"] and after["300-50"]["scores"]["word_overlap"] == 0.25


def test_the_same_holds_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    break_scoring(monkeypatch, KeyError("paragraph"))
    result = run("tiny", "needle", ["fullkv"], settings={"task.lengths": [300], "task.depths": [0, 50]})
    texts = {record["example_id"]: (record["text"], record["error"]) for record in result.records()}
    assert all(text for text, _ in texts.values())
    assert texts["300-0"][1] is None and "KeyError" in str(texts["300-50"][1])


def test_a_tokenizer_that_asks_for_the_clean_up_of_spaces_gets_it_and_the_manifest_says_so(
    kvgauge: Command, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(ROOT / "models/tiny", tmp_path / "model"))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(settings | {"clean_up_tokenization_spaces": True}))
    (record,) = (json.loads(line) for line in (FIXTURES / "qasper.jsonl").read_text().splitlines()[:1])
    (tmp_path / "qasper.jsonl").write_text(json.dumps(record | {"context": "The lamp , the boat . " * 50}) + "\n")
    of_task = ("task=longbench", f"task.data={tmp_path}", "task.datasets=[qasper]", "task.max_prompt_tokens=600")
    words = ("model=hf", f"model.path={model}", "method=fullkv", "task.chat=false", *of_task)
    manifests, prompts = {}, {}
    for how in ("tokenizer", "never"):
        done = kvgauge(*words, f"task.clean_up={how}", f"results_dir={tmp_path / how}")
        assert done.code == 0, done.err
        (cell,) = (path.parent for path in (tmp_path / how).rglob("manifest.json"))
        manifests[how] = json.loads((cell / "manifest.json").read_text())["settings"]["task"]
        prompts[how] = [record["prompt_sha256"] for record in records(cell)]
    assert manifests["tokenizer"] == manifests["never"] | {"clean_up": True}
    assert prompts["tokenizer"] != prompts["never"]


def test_generated_texts_are_decoded_as_the_task_asks() -> None:
    (task,) = cast(LongBench, build(task_config("longbench", "task.datasets=[lcc]"))).tasks()
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "models/tiny")
    tokens = tokenizer.encode("area(width , height) .", add_special_tokens=False)
    assert generated_text(task, tokenizer, tokens) == "area(width , height) ."
    tokenizer.clean_up_tokenization_spaces = True
    assert generated_text(task, tokenizer, tokens) == "area(width, height)."
    assert generated_text(replace(task, clean_up="installed"), tokenizer, tokens) == "area(width , height) ."
