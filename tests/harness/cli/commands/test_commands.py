"""Commands that tell what there is: ``list``, ``show``, ``doctor``, ``new``."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from harness.cli.commands import COMMANDS
from harness.config.catalog import GROUPS, choices
from tests import documents
from tests.conftest import Command

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def own_methods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of two methods: one reads SnapKV's paper otherwise and needs a file, one does not say what it needs."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "method").mkdir()
    for name, head in {
        "mine": "# Mine (Who & Else, arXiv:2404.14469, 2024).\n# needs: attention file\n",
        "mute": "# Mute.\n",
    }.items():
        text = f"# @package method.{name}\n{head}_target_: {name}.Own\nlabel: {name}\n# Any.\nwindow: 64\n"
        (folder / f"method/{name}.yaml").write_text(text, encoding="utf-8")
        (folder / f"{name}.py").write_text(
            f'"""{name.capitalize()}: a method.\n\nClaim: none.\nDiffers:\n    - from the paper: in all.\n"""\n',
            encoding="utf-8",
        )
    yield folder
    with suppress(ValueError):
        sys.path.remove(str(folder))


def test_list_names_every_file_of_every_group_and_what_it_is(kvgauge: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = kvgauge("list")
    assert shown.code == 0, shown.err
    for group in GROUPS:
        found = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert found == {choice.name for choice in choices(group)} and found
        for choice in choices(group):
            assert choice.about, f"conf/{group}/{choice.name}.yaml does not say what it is"
            title, _, _ = choice.module_doc.partition("\n\n")
            assert (" ".join(title.split()) if group == "method" and title else choice.about) in shown.told


def test_list_shows_one_group_alone(kvgauge: Command) -> None:
    shown = kvgauge("list", "methods")
    assert "pyramidkv" in shown.out and "llama3_8b" not in shown.out


def test_list_groups_methods_by_what_they_need_with_paper_and_year(kvgauge: Command, own_methods: Path) -> None:
    shown = kvgauge("list", "methods", "--method-path", str(own_methods))
    assert shown.code == 0, shown.err
    lines = [line.rstrip() for line in shown.out.splitlines()]
    titles = ["needs positions alone", "needs attention", "needs a file", "does not say what it needs"]
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    place = {line.split()[0]: number for number, line in enumerate(lines) if line}
    first, attention, file, silent = places
    assert first < place["streamingllm"] < attention < place["snapkv"] < file < place["mine"] < silent < place["mute"]
    assert re.search(r"^snapkv +Li et al\., arXiv:2404\.14469 +2024\b", shown.out, re.MULTILINE)
    assert re.search(r"^mine +Who & Else, arXiv:2404\.14469 +2024\b", shown.out, re.MULTILINE)


def test_every_method_says_what_it_needs_and_method_all_is_every_one_that_needs_no_file_and_no_replay() -> None:
    methods = [choice for choice in choices("method") if choice.target]
    words = r"nothing|keys|values|queries|attention|layers|file|scorer"
    assert [choice.name for choice in methods if not re.search(words, choice.needs)] == []
    listed = yaml.safe_load((ROOT / "conf/method/all.yaml").read_text(encoding="utf-8"))["defaults"]
    assert sorted(listed) == [choice.name for choice in methods if not {"file", "replay"} & {*choice.needs.split()}]


def test_show_has_the_readings_of_one_paper_beside_each_other(kvgauge: Command, own_methods: Path) -> None:
    alone = kvgauge("show", "method", "kvcompose", "--method-path", str(own_methods))
    assert alone.code == 0 and "readings of" not in alone.out
    shown = kvgauge("show", "method", "snapkv", "--method-path", str(own_methods))
    assert shown.code == 0, shown.err
    _, title, readings = shown.out.partition("readings of arXiv:2404.14469\n")
    assert title and re.match(r"\W*snapkv +mine +snapkv_kvpress *\n", readings)
    assert re.search(r"^window +8 +64 +64 *$", readings, re.MULTILINE)
    assert re.search(r"^kernel +7 +5 *$", readings, re.MULTILINE)
    assert "mine: Mine (Who & Else, arXiv:2404.14469, 2024).\nDiffers:\n    - from the paper: in all." in readings


def test_show_prints_the_knobs_with_their_comments_and_what_differs_from_the_source(kvgauge: Command) -> None:
    shown = kvgauge("show", "method", "pyramidkv")
    assert shown.code == 0, shown.err
    assert "Differs:" in shown.out and "arXiv:2406.02069" in shown.out
    assert (ROOT / "conf/method/pyramidkv.yaml").read_text().rstrip() in shown.out


@pytest.mark.parametrize("group", GROUPS)
def test_show_knows_every_choice(group: str, kvgauge: Command) -> None:
    for choice in choices(group):
        assert kvgauge("show", group, choice.name).code == 0


def test_doctor_names_versions_device_memory_and_data(kvgauge: Command, tmp_path: Path) -> None:
    shown = kvgauge("doctor", "--results", str(tmp_path / "not/yet/there"))
    assert shown.code == 0, shown.err
    facts = {line.split("  ")[0].strip(): line for line in shown.out.splitlines()}
    assert {"python", "device", "memory", "free disk", "hub", "longbench", "torch", "transformers"} <= set(facts)
    assert "GiB" in facts["memory"]
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "metods"], "kvgauge list does not take metods: did you mean methods?"),
        (["list", "method"], "kvgauge list does not take method: did you mean methods?"),
        (["show", "method", "pyramid"], "method=pyramid is not there: did you mean pyramidkv?"),
        (["show", "task", "x"], "task=x is not there: use aime24, gsm8k, ifeval, infinitebench, jsonl, labels, "),
        (["show", "method"], "method= is not there: use ada_pyramidkv, "),
        (["show", "snapkv"], "use kvgauge show method snapkv"),
        (["show", "metod", "snapkv"], "use kvgauge show method snapkv"),
        (["doctor", "--result"], "kvgauge doctor: argument --results: expected one argument"),
        (["new", "method", "snapkv"], "method snapkv is there already"),
        (["new", "method", "../x"], "'../x' cannot name a method"),
        (["new", "method", "class"], "'class' cannot name a method"),
        (["new", "model", "x"], "kvgauge new does not take model: use method, task"),
        (["new", "method", "x", "--kind", "scores"], "kvgauge new does not take scores: did you mean scorer?"),
        (["new", "method", "x", "--to", "/dev"], "/dev is no clone of kvgauge"),
    ],
)
def test_bad_words_are_one_line(kvgauge: Command, words: list[str], message: str) -> None:
    failed = kvgauge(*words)
    assert failed.code == 2
    assert message in failed.err and failed.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_refuses_what_it_does_not_know(kvgauge: Command, command: str) -> None:
    shown = kvgauge(command, "--help")
    assert shown.code == 0
    about = import_module(f"harness.cli.commands.{COMMANDS[command]}").HELP
    assert about.split()[:6] == shown.out.partition("\n\n")[2].split()[:6]
    refused = kvgauge(command, "--nonsense")
    assert refused.code == 2 and refused.out == ""
    assert refused.err.startswith(f"kvgauge: kvgauge {command}: ") and refused.err.count("\n") == 1
    assert f"kvgauge {command} --help shows what it takes" in refused.err


@pytest.mark.parametrize("command", ["report", "score", "verify", "wandb", "compare"])
def test_a_folder_without_results_is_one_line(kvgauge: Command, command: str, tmp_path: Path) -> None:
    refused = kvgauge(command, str(tmp_path))
    assert refused.code == 5, refused.err
    assert "holds no cell" in refused.err and refused.err.count("\n") == 1


def test_report_tells_what_it_wrote(kvgauge: Command, tmp_path: Path, prompts_file: Path) -> None:
    words = [
        "method=fullkv",
        "task=tokens",
        f"task.prompts={prompts_file}",
        "task.max_new_tokens=1",
        f"results_dir={tmp_path / 'results'}",
    ]
    assert kvgauge(*words).code == 0
    shown = kvgauge("report", str(tmp_path / "results"), "--to", str(tmp_path / "elsewhere"))
    assert shown.code == 0, shown.err
    written = dict(line.split(": ") for line in shown.out.splitlines() if str(tmp_path) in line)
    assert written == {
        "tables and plots": str(tmp_path / "elsewhere/tiny/tokens"),
        "page": str(tmp_path / "elsewhere/index.html"),
    }
    assert all(Path(place).exists() for place in written.values())
    refused = kvgauge("report", str(tmp_path / "results"), "--to", "/dev/null/x")
    assert refused.code == 5 and "choose another folder with --to" in refused.err


@pytest.mark.slow
@pytest.mark.long
def test_new_methods_of_every_kind_pass_every_test_as_they_are_written(kvgauge: Command, tmp_path: Path) -> None:
    documents.clone(tmp_path)
    shutil.copy(documents.ROOT / "pyproject.toml", tmp_path)
    names = {kind: f"my_{kind}" for kind in ("scorer", "allocation", "wrapper")}
    for kind, name in names.items():
        written = kvgauge("new", "method", name, "--kind", kind, "--to", str(tmp_path))
        assert written.code == 0, written.err
    done = documents.session(
        tmp_path,
        [
            f"python -m pytest -vv tests/methods -k '{' or '.join(names.values())}'",
            f"python run.py method=[fullkv,{','.join(names.values())}] budget=64 task.lengths=[400] task.depths=[50]",
        ],
    )
    assert [code for code, _ in done] == [0, 0], done
    assert all(f"test_{name}.py::" in done[0][1] for name in names.values()), "each has tests of its own"
    checked = documents.python(tmp_path, "-m", "ruff", "check", "methods", "tests")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    table = (tmp_path / "results/report/tiny/needle/table.csv").read_text()
    assert all(name in table for name in names.values())
    again = kvgauge("new", "method", "my_scorer", "--to", str(tmp_path))
    assert again.code == 2 and "is there already: use another name" in again.err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scorer", "allocation", "wrapper"])
def test_a_new_method_of_any_kind_outside_the_clone_passes_its_own_test(
    kvgauge: Command, kind: str, tmp_path: Path
) -> None:
    written = kvgauge("new", "method", f"some_{kind}", "--kind", kind, "--method-path", str(tmp_path))
    assert written.code == 0, written.err
    path = f"{tmp_path}:{ROOT}"
    done = documents.python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"test_some_{kind}.py", path=path)
    assert done.returncode == 0, done.stdout
