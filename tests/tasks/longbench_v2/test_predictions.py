"""kvpress's predictions on LongBench v2: the cells they become, their scores both ways, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.config.build import build, task_config
from tests.conftest import Command
from tests.tasks.goldens import golden
from tests.tasks.longbench.test_suite import tokenizer

CASES = golden("longbench_v2/extraction_cases.json", "longbench_v2_extraction.json")
RECORDS = golden("longbench_v2/fixture.json", "longbench_v2_fixture.json")["records"]
PLACE = "longbench-v2__0shot__meta--llama__snapkv__0.88"


def rows() -> list[dict[str, Any]]:
    """A row for each case of an answer, under the columns of kvpress's data without its contexts."""
    return [
        {name: text for name, text in RECORDS[n % len(RECORDS)].items() if name != "context"}
        | {
            "_id": f"66f3{n}",
            "answer": "ABCD"[n % 4],
            "question": "Why?\nWhat is …",
            "task": "0shot",
        }
        | {"answer_prefix": 'Format "The …', "max_new_tokens": 16, "predicted_answer": case["response"]}
        for n, case in enumerate(CASES)
    ]


def write(folder: Path, rows: list[dict[str, Any]], place: str = PLACE) -> Path:
    path = folder / place / "predictions.csv"
    path.parent.mkdir(parents=True)
    pd.DataFrame([row | {"compression_ratio": 0.875} for row in rows]).to_csv(path, index=False)
    return path


def test_a_table_is_scored_as_both_programs_score_it(kvgauge: Command, tmp_path: Path) -> None:
    write(tmp_path / "files", rows())
    words = ("--format", "kvpress", "--to", str(tmp_path / "to"))
    for task in ("longbench_v2", "longbench_v2_kvpress"):
        done = kvgauge("import", str(tmp_path / "files"), *words, "--task", task)
        assert done.code == 0, done.err
        right = [
            case["kvpress"]["ABCD"[n % 4]] if task.endswith("kvpress") else case["extracted"] == "ABCD"[n % 4]
            for n, case in enumerate(CASES)
        ]
        scores = json.loads((tmp_path / f"to/meta--llama/{task}/snapkv-12.5%/scores.json").read_text())
        assert scores["score"] == pytest.approx(100 * sum(right) / len(right)) and 0 < sum(right) < len(right)
    table = (tmp_path / "to/report/meta--llama/longbench_v2/table.md").read_text()
    assert "difficulty" in table and "length short" in table
    again = kvgauge("import", str(tmp_path / "files"), *words, "--task", "longbench_v2")
    assert "27 predictions from 1 files: 0 new" in again.out if len(CASES) == 27 else again.code == 0


def test_predictions_pair_with_a_run_on_the_same_records(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps(RECORDS[:3]), encoding="utf-8")
    task = build(task_config("longbench_v2") | {"data": str(tmp_path), "chat": False, "chat_arguments": {}})
    ours = task.examples(tokenizer())[:]
    lines = [row | {"_id": r["_id"], "answer": r["answer"]} for row, r in zip(rows(), RECORDS[:3], strict=False)]
    (imported,) = task.predictions(write(tmp_path, lines, PLACE.replace("snapkv__0.88", "no_press__0.00")), "kvpress")
    assert (imported.task, imported.model, imported.budget) == ("longbench_v2", "meta--llama", "full")
    for example, (other, text), line in zip(ours, imported.rows, lines, strict=True):
        assert (example.id, example.references, example.group) == (other.id, other.references, other.group)
        assert text == line["predicted_answer"]


@pytest.mark.parametrize(
    ("place", "change", "said"),
    [
        ("ruler__4096__m__snapkv__0.50", {}, "is of ruler, not of LongBench v2: import it with --task ruler"),
        ("loogle__shortdep_qa__m__snapkv__0.50", {}, "is of loogle, which kvgauge cannot score"),
        (PLACE, {"answer": "E"}, "line 2 of {file} has answer='E', which is not one of A, B, C, D"),
        (PLACE, {"_id": ""}, "line 2 of {file} has _id='', which is not a text"),
        (PLACE, {"length": None}, "line 1 of {file} names no column 'length'"),
    ],
)
def test_a_table_that_is_not_of_longbench_v2_is_one_line(
    kvgauge: Command, tmp_path: Path, place: str, change: dict[str, Any], said: str
) -> None:
    row = {"question": "Why?"} | rows()[0] | change
    path = write(tmp_path / "files", [{name: value for name, value in row.items() if value is not None}], place)
    words = ("--format", "kvpress", "--task", "longbench_v2", "--to", str(tmp_path / "to"))
    done = kvgauge("import", str(tmp_path / "files"), *words)
    assert done.code == 3 and done.err.count("\n") == 1, done.err
    assert said.format(file=path) in done.err
    assert not (tmp_path / "to").exists()
