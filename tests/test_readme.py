"""Every command of the README, as it is written there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.documents import ROOT, commands, embedded, made, targets
from tests.harness.gguf_file import SMOLLM2, write

LINES = commands(ROOT / "README.md")
RUNS = [line for line in LINES if line.startswith("python run.py")]
GRIDS = [line for line in LINES if re.match("make (longbench|needle) ", line)]
RESULTS = [line for line in LINES if line.startswith("kvgauge ")]
DATA = {"longbench": "tests/fixtures/longbench", "needle": "tests/golden/needle/haystack"}


@pytest.mark.parametrize("line", RUNS)
def test_the_command_runs(line: str, kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command on a model of the hub is composed and planned on the embedded one, the others run as they are, on
    short prompts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / ".cache/kvgauge").mkdir(parents=True)
    write(tmp_path / ".cache/kvgauge" / SMOLLM2.name)
    words = embedded(shlex.split(line)[2:])
    words = [word for word in words if not word.startswith("task.lengths")] + ["task.lengths=[400]"]
    done = kvgauge(*words, f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    assert "prefills: " in done.out


def test_the_commands_on_results_run(kvgauge: Command, tmp_path: Path) -> None:
    grid = kvgauge(
        "method=[fullkv,snapkv]", "budget=64", "task.lengths=[400]", "task.depths=[0,50]", f"results_dir={tmp_path}"
    )
    assert grid.code == 0, grid.err
    assert [line.split()[1] for line in RESULTS] == ["report", "score", "compare"]
    for line in RESULTS:
        words = [str(tmp_path) if word == "results" else word for word in shlex.split(line)[1:]]
        done = kvgauge(*words)
        assert done.code == 0, (line, done.err)
        assert str(tmp_path / "report") in done.out


def test_every_other_command_is_a_target_of_the_makefile() -> None:
    others = [line for line in LINES if line not in RUNS]
    plain = [line for line in others if line not in (*GRIDS, *RESULTS)]
    assert plain == [
        "make run",
        "make run MODEL=tiny",
        "source .venv/bin/activate",
        "make smollm2",
        "make check",
        "make test",
        "make test-slow",
        "make train-tiny",
    ]
    assert {line.split()[1] for line in others if line.startswith("make")} <= targets()


@pytest.mark.parametrize("line", GRIDS)
def test_the_published_grid_runs(line: str, kvgauge: Command, tmp_path: Path) -> None:
    """What make would run, planned on the embedded model and one example of the tests' own data."""
    target = line.split()[1]
    words = made(line, MODEL="tiny", LIMIT="1", DATA=str(ROOT / DATA[target]))
    done = kvgauge(*words, "dry_run=true", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    cells, tasks = {"longbench": (29, 16), "needle": (13, 1)}[target]
    assert done.out.count(f"cells: {cells}") == tasks
    model = re.search(r"MODEL=(\w+)", line)
    assert model and (ROOT / f"conf/model/{model[1]}.yaml").exists()


@pytest.mark.parametrize(("model", "says"), [("", "needle_chat on smollm2-135m"), ("tiny", "needle on tiny")])
def test_the_first_command_runs_the_model_it_says(
    model: str, says: str, kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a little file in the place of the real one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "kvgauge").mkdir()
    write(tmp_path / "kvgauge" / SMOLLM2.name)
    done = kvgauge(*made("make run", MODEL=model), "dry_run=true", f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    assert says in done.out and "prompts: 15;" in done.out


def test_a_model_among_the_settings_takes_the_place_of_the_usual_one() -> None:
    assert made("make run model=tiny", MODEL="") == ["model=tiny"]
    assert made("make run budget=32", MODEL="") == ["experiment=needle_smollm2", "budget=32"]
    assert made("make run", MODEL="smollm2_135m") == ["experiment=needle_smollm2"]


def test_the_table_of_axes_is_what_there_is() -> None:
    text = (ROOT / "README.md").read_text()
    for group in ("method", "storage", "task", "model", "experiment", "tracker"):
        (row,) = re.findall(rf"^\| `{group}` \| (.*) \|$", text, re.MULTILINE)
        names = set(re.findall(r"`(\w+)`", row))
        there = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        # A clone may have methods of its user's.
        assert names <= there if group == "method" else there <= names, group


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_there_are_as_many_methods_as_the_first_page_says(page: str) -> None:
    assert "[over forty others]" in (ROOT / page).read_text(encoding="utf-8")
    named = [
        set(re.findall(r"^  - (\w+)$", (ROOT / "conf/method" / name).read_text(encoding="utf-8"), re.MULTILINE))
        - {"_self_"}
        for name in ("all.yaml", "published.yaml")
    ]
    assert len(named[0] - named[1]) > 40
