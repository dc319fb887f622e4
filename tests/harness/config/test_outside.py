"""Methods that lie outside the clone: written, listed, shown, run, held to the contract, and not mixed with records of
their older code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.config.outside import own_folders, search_path_words, source_of
from harness.errors import ConfigError
from tests.conftest import ROOT, Command
from tests.documents import own_task


@pytest.fixture
def outer(kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a method, which nothing knows any more afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "my methods"
    written = kvgauge("new", "method", "outer", "--method-path", str(folder))
    assert written.code == 0, written.err
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "method/outer.yaml",
        "outer.py",
        "test_outer.py",
    ]
    yield folder
    sys.modules.pop("outer", None)


def test_a_method_outside_is_listed_shown_run_and_known_by_its_code(
    kvgauge: Command, outer: Path, prompts_file: Path, tmp_path: Path
) -> None:
    assert "outer" in kvgauge("list", "methods", "--method-path", str(outer)).out.splitlines()
    shown = kvgauge("show", "method", "outer", "--method-path", str(outer)).out
    assert "Differs:" in shown and str(outer / "method/outer.yaml") in shown.replace("\n", "")
    words = [
        "budget=32",
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=2",
        f"results_dir={tmp_path / 'results'}",
    ]
    where = f"method_path={outer}"
    done = kvgauge(where, "method=[fullkv,outer]", *words)
    assert done.code == 0, done.err
    assert {"fullkv", "outer"} <= {line.split(" ")[0] for line in done.out.splitlines()}
    methods = {
        name: json.loads((tmp_path / f"results/tiny/tokens/{name}/manifest.json").read_text())["settings"]["method"]
        for name in ("fullkv-full", "outer-32")
    }
    assert methods["outer-32"]["class"] == "outer.Outer" and len(methods["outer-32"]["source_sha256"]) == 64
    assert "source_sha256" not in methods["fullkv-full"]
    assert "new records: 0" in kvgauge(where, "method=outer", *words).out
    (outer / "outer.py").write_text((outer / "outer.py").read_text() + "\nCHANGED = True\n")
    changed = kvgauge(where, "method=outer", *words)
    assert changed.code == 5 and "was made with method.source_sha256=" in changed.err
    assert kvgauge("method=outer", *words).code == 2


@pytest.mark.slow
def test_a_method_outside_is_held_to_the_contract_and_its_own_test_passes(outer: Path) -> None:
    environment = {**os.environ, "KVGAUGE_METHOD_PATH": str(outer), "HF_HUB_OFFLINE": "1"}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "tests/methods/test_contract.py",
        str(outer / "test_outer.py"),
        "-k",
        "outer",
    ]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout
    assert done.stdout.count(".") > 15


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the task of docs/extending.md, which nothing knows any more afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, block in own_task().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block)
    yield tmp_path / "my-tasks"
    sys.modules.pop("echo", None)


def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process would not know."""
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if "my-tasks" not in folder])
    sys.modules.pop("echo", None)


@pytest.mark.slow
def test_a_task_outside_is_listed_shown_run_resumed_scored_verified_and_known_by_its_code(
    kvgauge: Command, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, path = tmp_path / "results", ("--task-path", str(own))
    assert "echo  " in kvgauge("list", "tasks", *path).out
    assert str(own / "task/echo.yaml") in kvgauge("show", "task", "echo", *path).out.replace("\n", "")
    words = (f"task_path={own}", "task=echo", "method=[fullkv,snapkv]", "budget=32", f"results_dir={results}")
    assert kvgauge(*words, "limit=2").code == 0
    assert "new records: 4," in kvgauge(*words).out
    manifest = json.loads((results / "tiny/echo/snapkv-32/manifest.json").read_text())
    assert len(manifest["settings"]["task"]["source_sha256"]) == 64
    assert manifest["provenance"]["own_folders"] == [str(own)]
    for command in ("score", "verify"):
        forgotten(monkeypatch)
        refused = kvgauge(command, str(results))
        assert refused.code == 2 and "give the folder of a task of your own with --task-path" in refused.err
        done = kvgauge(command, str(results), *path)
        assert done.code == 0 and ("0 changed" in done.out or "2 cells hold" in done.out), done.err
    forgotten(monkeypatch)
    assert kvgauge("report", str(results)).code == 0
    (own / "echo.py").write_text((own / "echo.py").read_text() + "\nCHANGED = True\n")
    changed = kvgauge(*words)
    assert changed.code == 5 and "was made with task.source_sha256=" in changed.err
    assert "use another task.name" in changed.err
    assert kvgauge("task=echo").code == 2


def test_a_folder_of_methods_and_one_of_tasks_go_together(kvgauge: Command, outer: Path, own: Path) -> None:
    words = (f"method_path={outer}", f"task_path={own}", "task=echo", "method=outer", "budget=32", "dry_run=true")
    done = kvgauge(*words)
    assert done.code == 0 and "outer" in done.out, done.err


def test_all_files_of_a_package_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "several_files"
    package.mkdir()
    (package / "__init__.py").write_text("class One: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    import several_files  # type: ignore[import-not-found]

    before = source_of(several_files.One)
    (package / "part.py").write_text("x = 1\n")
    assert before and source_of(several_files.One) != before


def test_a_package_without_an_init_file_is_known_by_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_init").mkdir()
    (tmp_path / "no_init/part.py").write_text("class One: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    from no_init import part  # type: ignore[import-not-found]

    before = source_of(part.One)
    (tmp_path / "no_init/part.py").write_text("class One: x = 1\n")
    assert before and source_of(part.One) != before


def test_a_folder_of_several_is_a_word_for_hydra_whatever_its_name(tmp_path: Path) -> None:
    for name in ("a b", "it's"):
        (tmp_path / name / "method").mkdir(parents=True)
        (tmp_path / name / f"method/m{len(name)}.yaml").write_text("label: x\n")
    words = search_path_words(["budget=3", f'method_path=["{tmp_path}/a b","{tmp_path}/it\'s"]'])
    assert words == ["budget=3", f"hydra.searchpath=['file://{tmp_path}/a b','file://{tmp_path}/it\\'s']"]


@pytest.mark.parametrize("name", ["snapkv", "all"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / f"method/{name}.yaml").write_text("label: x\n")
    with pytest.raises(ConfigError, match=f"method {name} is there twice"):
        own_folders("method", [tmp_path])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method_path=/nope", "method=x"], "method_path=/nope holds no method/*.yaml"),
        (["task_path=/nope", "task=x"], "task_path=/nope holds no task/*.yaml: give a folder of tasks"),
        (["report", "--task-path", "/nope"], "task_path=/nope holds no task/*.yaml: give a folder of tasks"),
        (["list", "--method-path", "/nope"], "method_path=/nope holds no method/*.yaml"),
        (["new", "method", "json", "--method-path", "/nope"], "json is the name of a module that Python has already"),
        (["new", "method", "x", "--method-path", "/nope", "--to", "."], "not allowed with argument"),
    ],
)
def test_bad_words_are_one_line(kvgauge: Command, words: list[str], message: str) -> None:
    failed = kvgauge(*words)
    assert failed.code == 2
    assert message in failed.err and failed.err.count("\n") == 1


@pytest.mark.slow
def test_a_launchers_processes_find_methods_and_tasks_outside(
    kvgauge: Command, outer: Path, own: Path, tmp_path: Path
) -> None:
    words = [f"method_path={outer}", f"task_path={own}", "method=outer", "budget=32", "task=echo", "task.count=2"]
    done = kvgauge(*words, "hydra/launcher=local", f"results_dir={tmp_path / 'results'}")
    assert done.code == 0, done.out + done.err
    assert (tmp_path / "results/tiny/echo/outer-32/scores.json").exists()
