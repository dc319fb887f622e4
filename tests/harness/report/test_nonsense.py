"""Results that mean next to nothing are said to, with the settings that help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from msgspec import structs

from harness.report.nonsense import nonsense_notes
from harness.report.suite_tables import suite_document
from harness.results import Cell, CellResult, Record, SuiteResult, TaskResult
from harness.task import Metric
from tests.conftest import Command

METRIC = Metric("m", "match", 1.0)
KNOBS = ("_target_", "name", "chat", "question", "prompt", "stop_at_newline")


def task(scores: list[float], texts: list[str | None], retention: float | None = 1.0, **changes: object) -> TaskResult:
    records = tuple(
        Record(
            str(index),
            {},
            (),
            {},
            10,
            "00",
            scores={"m": score},
            text=text,
            kept=(10,),
            retention=retention,
            tokens=(3,),
        )
        for index, (score, text) in enumerate(zip(scores, texts, strict=True))
    )
    worse = tuple(structs.replace(record, scores={"m": 0}, text="", retention=0.5) for record in records)
    cells = (
        CellResult(Cell("fullkv", "full"), len(records), records),
        CellResult(Cell("snapkv", "8"), len(records), worse),
    )
    return replace(TaskResult("model", "task", (METRIC,), None, "", cells, None, None, KNOBS), **changes)  # type: ignore[arg-type]


def notes(*arguments: object, **changes: object) -> list[str]:
    return nonsense_notes({"trec": task(*arguments, **changes)})  # type: ignore[arg-type]


def test_a_full_cache_that_scores_next_to_nothing_is_said_with_the_knobs_that_the_task_has() -> None:
    assert notes([0.0, 0.0, 0.0], ["a", "b", "c"]) == [
        "the full cache scores next to nothing (0.00 in trec), so no score here says what compression costs; what may "
        "help: task.chat=true for a model that is tuned to chat, false for another; a task.question that asks, or one "
        "that the model completes; another task.prompt; another task or model."
    ]
    (bare,) = notes([0.0, 0.01, 0.02], ["a", "b", "c"], knobs=())
    assert bare.endswith(
        "(1.00 in trec), so no score here says what compression costs; what may help: another task or model."
    )
    assert notes([0.0, 0.0, 0.2], ["a", "b", "c"]) == []


def test_answers_that_are_empty_or_a_line_break_are_counted_in_the_full_cache() -> None:
    (note,) = notes([1.0, 1.0, 1.0, 1.0], ["\n", "", " said ", "x"])
    assert note.startswith(
        "answers are empty or a line break (2 of 4 in trec), as the model ends them at once; what may"
    )
    assert "task.stop_at_newline=false" in note
    assert notes([1.0] * 5, ["\n", "a", "b", "c", "d"]) == [], "one of five may be right"


def test_what_has_no_scores_no_text_or_no_full_cache_gets_no_wrong_note() -> None:
    assert notes([0.0], [None], metrics=()) == []
    assert notes([0.0, 0.0], ["a", "b"], retention=None, cells=task([0.0], ["a"], None).cells[:1]) == []
    assert nonsense_notes({}) == [] and notes([], []) == []


def test_a_suite_has_one_line_for_all_its_tasks() -> None:
    tasks = (
        task([0.0], ["\n"], task="lb-trec"),
        task([0.0], [""], task="lb-lcc"),
        task([1.0], ["x"], task="lb-qasper"),
    )
    found = suite_document(SuiteResult("model", "lb", tasks, ())).notes
    assert sum("scores next to nothing (0.00 in trec, 0.00 in lcc)" in note for note in found) == 1
    assert sum("a line break (1 of 1 in trec, 1 of 1 in lcc)" in note for note in found) == 1


def test_terminal_table_and_page_say_that_the_full_cache_finds_nothing(kvgauge: Command, tmp_path: Path) -> None:
    results = tmp_path / "results"
    done = kvgauge(
        "method=fullkv", "task.lengths=[500]", "task.depths=[0,100]", "task.prompt='{context}'",
        "task.needle=' A needle.'", "task.answers=[xyzzy]", f"results_dir={results}",
    )  # fmt: skip
    assert done.code == 0, done.err
    files = [results / "report/tiny/needle/table.md", results / "report/index.html"]
    for place in (done.out, *(file.read_text() for file in files)):
        assert "scores next to nothing (0.00 in needle)" in " ".join(place.split())
