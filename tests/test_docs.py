"""The documentation: every command is run, every file that a page builds is used, every test it names is there, and no
link is broken."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from harness.cli.commands import COMMANDS
from harness.config.catalog import GROUPS, choices
from tests.conftest import Command
from tests.documents import ROOT, clone, commands, embedded, files, made, own_task, session, targets
from tests.harness.gguf_file import SMOLLM2, write

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
EXTENDING = DOCS / "extending.md"
DATA = {"longbench": "LongBench", "needle": "essays"}
# What a reader has and a test has not: a network, a shell.
ELSEWHERE = ("kvgauge data longbench", "source .venv/bin/activate")
# The fixtures have the form of LongBench's files and are not them; the check says so.
OTHERWISE = {"kvgauge data check LongBench": 3}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's folder: data under the names that the pages give it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write(Path(SMOLLM2.name))
    Path("LongBench").symlink_to(ROOT / "tests/fixtures/longbench")
    Path("examples").symlink_to(ROOT / "examples")
    Path("essays").symlink_to(ROOT / "tests/golden/needle/haystack")
    Path("math500.jsonl").symlink_to(ROOT / "tests/golden/maths/math500.jsonl")
    Path("input_data.jsonl").symlink_to(ROOT / "tests/golden/ifeval/input_data.jsonl")
    Path("prompts.json").write_text(json.dumps({"one": [*range(2, 80)]}))
    Path("clone/conf/method").mkdir(parents=True)
    Path("pred/some-model").mkdir(parents=True)
    prediction = {"pred": "Paris.", "answers": ["Paris"], "all_classes": None, "length": 3}
    Path("pred/some-model/hotpotqa.jsonl").write_text(json.dumps(prediction) + "\n")
    Path("ruler/1024").mkdir(parents=True)
    needle = "One of the special magic uuids for a is: b.\nWhat is the special magic uuid for a?"
    record = {"input": needle, "outputs": ["b"], "answer_prefix": " The special magic uuid for a is"}
    Path("ruler/1024/niah_multikey_3.jsonl").write_text(json.dumps(record) + "\n")
    Path("ruler__4096__some-model__snapkv__0.50").mkdir()
    table = "question,answer,predicted_answer,task\nWhich?,['one' 'two'],one,vt\n"
    Path("ruler__4096__some-model__snapkv__0.50/predictions.csv").write_text(table)
    Path("longbench-v2__0shot__some-model__snapkv__0.50").mkdir()
    table = "_id,answer,difficulty,length,domain,predicted_answer\n1,B,easy,short,Code,The correct answer is (B)\n"
    Path("longbench-v2__0shot__some-model__snapkv__0.50/predictions.csv").write_text(table)
    return tmp_path


def run(line: str, kvgauge: Command, desk: Path) -> None:
    """Do what a line says; a grid that make would run is planned, and a small one run in its place."""
    words = shlex.split(line)
    if line in ELSEWHERE or (words[:2] == ["kvgauge", "lm_eval"] and find_spec("lm_eval") is None):
        return
    if words[0] == "make":
        assert words[1] in targets()
        if words[1] not in DATA:
            return
        planned = kvgauge(*made(line, MODEL="tiny", DATA=str(desk / DATA[words[1]])), "dry_run=true")
        assert planned.code == 0, (line, planned.err)
        words = ["method=[fullkv,snapkv]", "budget=64", "task.lengths=[300]", "task.depths=[0,50]"]
    elif words[:2] == ["python", "run.py"]:
        words = embedded(words[2:])
        if not any(word.startswith(("task", "experiment=", "--", "dry_run")) for word in words):
            words += ["task.lengths=[300]", "task.depths=[50]"]
    else:
        assert words[0] == "kvgauge", f"nobody runs {line}"
        words = words[1:] + (["--to", "clone"] if words[1:3] == ["new", "method"] else [])
    done = kvgauge(*words)
    assert done.code == OTHERWISE.get(line, 0), (line, done.err)
    assert done.out


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != EXTENDING and commands(page)], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run_in_their_order(page: Path, kvgauge: Command, desk: Path) -> None:
    for line in commands(page):
        run(line, kvgauge, desk)


@pytest.mark.slow
def test_the_page_on_methods_builds_one_that_passes_runs_and_can_be_shown(kvgauge: Command, tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    first, *lines = commands(EXTENDING)
    written = kvgauge(*shlex.split(first)[1:], "--to", str(folder))
    assert written.code == 0, written.err
    shown = files(EXTENDING)
    assert written.out.splitlines()[:3] == [str(folder / name) for name in list(shown)[:3]]
    for name, block in shown.items():
        assert not (ROOT / name).exists(), f"{name} of the page is a file of the project"
        (folder / name).write_text(block, encoding="utf-8")
    for name, block in own_task().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    *done, (code, refused) = session(folder, [*lines, lines[1] + " method.my_tova.window=4"])
    assert [code for code, _ in done] == [0] * len(lines), done
    tests, grid, account, heads, other, written_outside, outside, its_account, task, scored = (text for _, text in done)
    assert int(re.findall(r"(\d+) passed", tests)[0]) > 10
    assert {"fullkv", "snapkv", "my_tova"} <= {line.split(" ")[0] for line in grid.splitlines()}
    assert shown["conf/method/my_tova.yaml"] in account
    assert {"my_tova_w1", "my_tova_w4"} <= {line.split(" ")[0] for line in other.splitlines()}
    assert {"best_heads", "wide_layers"} <= {line.split(" ")[0] for line in heads.splitlines()}
    kept = {name: kept_of(folder, name) for name in ("best_heads", "wide_layers")}
    assert any(isinstance(layer, list) for layer in kept["best_heads"])
    assert len(set(kept["wide_layers"])) > 1
    assert "echo on tiny" in task and "0 changed" in scored
    assert code == 5 and "method.window=1" in refused
    assert (tmp_path / "my-methods/mine.py").is_file() and "mine.yaml" in written_outside
    assert {"fullkv", "mine"} <= {line.split(" ")[0] for line in outside.splitlines()}
    assert "label: mine" in its_account


def kept_of(folder: Path, method: str) -> list[int | list[int]]:
    """What a method kept of the first prompt at budget 64, by layer."""
    (records,) = (folder / "results").glob(f"*/needle/{method}-64/records.0.jsonl")
    kept: list[int | list[int]] = json.loads(records.read_text(encoding="utf-8").splitlines()[0])["kept"]
    return kept


def test_every_command_has_its_section_and_an_example() -> None:
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == {"run", *COMMANDS}
    assert {line.split()[1] for line in commands(DOCS / "commands.md") if line.startswith("kvgauge ")} == set(COMMANDS)


def test_every_task_and_every_axis_is_told_of() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "tasks.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert {choice.name for choice in choices("task")} <= rows
    section = (DOCS / "commands.md").read_text(encoding="utf-8").partition("## list\n")[2].partition("## ")[0]
    assert set(re.findall(r"`(\w+)=`", section)) == set(GROUPS)


def test_every_test_that_a_page_names_is_there() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    named = {
        name
        for page in [*PAGES, ROOT / "README.md"]
        for name in re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8"))
    }
    assert named and named <= there, named - there


def test_every_page_can_be_read_in_three_minutes() -> None:
    """Of the pages that are read from top to bottom, at 250 words a minute; code and tables are looked at."""
    for page in PAGES:
        if page.stem in (
            "index",
            "quickstart",
            "concepts",
            "tasks",
            "reproduce",
            "commands",
            "faq",
            "extending",
            "your-data",
            "lm-eval",
        ):
            text = re.sub(
                r"^```.*?^```$|^\|[^\n]*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
            )
            assert len(text.split()) <= 750, page.name


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built as ``make docs`` builds them."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_is_built_without_a_broken_link(site: Path) -> None:
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    for entry in menu:
        (page,) = entry.values()
        assert (site / page).with_suffix(".html").is_file()


def test_the_site_asks_for_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"?(https?:[^\s\">]+|//[^\s\">]+)", text)
        loaded += [tag for tag in re.findall(r"<link[^>]*>", text) if re.search(r"href=\"?(https?:)?//", tag)]
        assert loaded == [], page.name
