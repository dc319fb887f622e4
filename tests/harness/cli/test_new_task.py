"""``kvgauge new task FILE`` looks at a file and writes its preset."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Command

SUMMARIES = ROOT / "examples/summary.jsonl"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user's own."""
    yield tmp_path / "own"
    while str(tmp_path / "own") in sys.path:
        sys.path.remove(str(tmp_path / "own"))


def test_a_preset_outside_the_clone_names_fields_and_metrics_and_can_be_planned(
    kvgauge: Command, folder: Path, tmp_path: Path
) -> None:
    written = kvgauge("new", "task", str(SUMMARIES), "--task-path", str(folder), "--name", "news")
    assert written.code == 0, written.err
    path = folder / "task/news.yaml"
    assert written.out.splitlines()[0] == str(path) and "2 records, 2 questions" in written.out
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values["fields"] == {"context": "article", "answers": "summary"}
    assert (values["show"], values["max_new_tokens"]) == ("rouge_l", 256)
    _, shown, run = (line.partition(" ")[2].split() for line in written.out.splitlines()[2:])
    planned = kvgauge(*run[1:], "dry_run=true", f"results_dir={tmp_path}")
    assert planned.code == 0 and "news on tiny" in planned.out, planned.err
    prompt = kvgauge(*shown)
    assert prompt.code == 0 and "Write a summary of the text above." in prompt.out, prompt.err


def test_a_preset_in_the_clone_is_a_task_like_the_others(kvgauge: Command, tmp_path: Path) -> None:
    (tmp_path / "conf/task").mkdir(parents=True)
    written = kvgauge("new", "task", str(ROOT / "examples/choice.jsonl"), "--to", str(tmp_path))
    assert written.code == 0, written.err
    values = yaml.safe_load((tmp_path / "conf/task/choice.yaml").read_text(encoding="utf-8"))
    assert values["defaults"] == ["jsonl", "_self_"] and values["show"] == "choice"
    assert "python run.py task=choice " in written.out


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["missing.jsonl"], 3, "task.data='missing.jsonl' cannot be read (FileNotFoundError)"),
        ([str(ROOT / "mkdocs.yml")], 3, "is not JSON"),
        ([str(SUMMARIES), "--name", "labels"], 2, "task labels is there already: give another one with --name"),
        ([str(SUMMARIES), "--name", "a/b"], 2, "--name='a/b' cannot name a folder"),
        ([str(SUMMARIES), "--to", "nowhere"], 2, "nowhere is no clone of kvgauge"),
    ],
)
def test_what_cannot_be_drafted_is_one_line(kvgauge: Command, words: list[str], code: int, told: str) -> None:
    done = kvgauge("new", "task", *words, *([] if "--to" in words else ["--task-path", "own"]))
    assert done.code == code and told in done.err and len(done.err.splitlines()) == 1
    assert not Path("own").exists()


def test_a_preset_that_is_there_stays(kvgauge: Command, folder: Path) -> None:
    words = ("new", "task", str(SUMMARIES), "--task-path", str(folder))
    assert kvgauge(*words).code == 0
    again = kvgauge(*words)
    assert again.code == 2 and "is there already: move it away, or give another --name" in again.err
