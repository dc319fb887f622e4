"""kvpress's predictions on RULER: the cells they become, their scores, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from harness.config.build import build, task_config
from tests.conftest import Command

ROOT = Path(__file__).parents[3]
CASES = json.loads((ROOT / "tests/golden/ruler/scorer_cases.json").read_text())
PLACE = "ruler__4096__meta--llama__snapkv__0.50"


def rows(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"question": f"Question {n}? ", "answer": answers, "predicted_answer": text, "task": case["task"]}
        for n, (text, answers) in enumerate(zip(case["predictions"], case["references"], strict=True))
    ]


def write(folder: Path, rows: list[dict[str, Any]], commas: bool = False, place: str = PLACE, **more: Any) -> Path:
    """As ``evaluate.py`` writes it: answers as numpy prints an array, or Python a list."""
    frame = pd.DataFrame([row | more for row in rows])
    if "answer" in frame:
        frame["answer"] = [list(a) if commas else np.array(a, dtype=object) for a in frame["answer"]]
    path = folder / place / "predictions.csv"
    path.parent.mkdir(parents=True)
    frame.to_csv(path, index=False)
    return path


def test_scores_are_those_that_kvpress_prints_with_and_without_commas(kvgauge: Command, tmp_path: Path) -> None:
    cases = {case["task"]: case for case in CASES if len(case["predictions"]) > 3}  # several tasks in one table
    assert len(cases) > 4
    lines = [row for case in cases.values() for row in rows(case)]
    write(tmp_path / "files", lines, commas=False, compression_ratio=0.5)
    write(tmp_path / "files", lines, commas=True, place=PLACE.replace("0.50", "0.88"), compression_ratio=0.875)
    words = ("--format", "kvpress", "--task", "ruler", "--to", str(tmp_path / "to"), "--set", "task.newlines=drop")
    done = kvgauge("import", str(tmp_path / "files"), *words)
    assert done.code == 0, done.err
    for task, case in cases.items():
        for budget in ("50%", "12.5%"):
            scores = tmp_path / f"to/meta--llama/ruler-4096-{task}/snapkv-{budget}/scores.json"
            assert round(json.loads(scores.read_text())["score"], 2) == case["kvpress_score"], task
    assert f"average of {len(cases)} of 13" in (tmp_path / "to/report/meta--llama/ruler/table.md").read_text()


def test_predictions_pair_with_a_run_on_the_same_records(tmp_path: Path) -> None:
    suite = build(task_config("ruler") | {"lengths": [1000], "tasks": ["niah_multikey_3"], "samples": 2})
    (task,) = suite.tasks()
    examples = list(task.examples(AutoTokenizer.from_pretrained(ROOT / "models/tiny")))
    lines = []
    for example in examples[::-1]:
        question = str(example.prompt)[example.question_at :].partition("The special magic")[0]
        lines.append(
            {"question": question, "answer": list(example.references), "predicted_answer": "x", "task": task.task}
        )
    path = write(tmp_path, lines, place="ruler__1000__m__no_press__0.00")
    (imported,) = suite.predictions(path, "kvpress")
    assert (imported.task, imported.model, imported.label, imported.budget) == (task.name, "m", "no_press", "full")
    assert [example.id for example, _ in imported.rows] == [example.id for example in examples[::-1]]


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        (
            "longbench__qasper__m__snapkv__0.50",
            {},
            "is of longbench, not of RULER: import it with --task longbench,",
        ),
        ("mine", {}, "does not say the length of its texts: call it as kvpress does, ruler__4096__"),
        (PLACE, {"task": "qasper"}, "line 2 of {file} is of task 'qasper', which RULER has not"),
        (PLACE, {"answer": []}, "line 2 of {file} has answers=[], which is not a list of texts"),
    ],
)
def test_a_table_that_is_not_rulers_is_one_line(
    kvgauge: Command, tmp_path: Path, place: str, change: dict[str, Any], said: str
) -> None:
    row = {"question": "Why?", "answer": ["x"], "predicted_answer": "x", "task": "vt"} | change
    path = write(tmp_path / "files", [row], place=place)
    done = kvgauge(
        "import", str(tmp_path / "files"), "--format", "kvpress", "--task", "ruler", "--to", str(tmp_path / "to")
    )
    assert done.code == 3 and done.err.count("\n") == 1, done.err
    assert said.format(file=path) in done.err
    assert not (tmp_path / "to").exists()
