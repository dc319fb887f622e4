"""Words of the command line that Hydra's grammar does not take as they are."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import kvgauge as package
from harness.config.words import quoted, understood
from tests.conftest import ROOT, Command

VALUES = ["/é", "a(b)", "a#b", "it's", "a,b", "a=b", "a[b]", "a{b}", "a&b", "~/x", 'a"b', 'a\\"b', "a\\", '"both" \'q']


@pytest.mark.parametrize("value", VALUES)
def test_the_quotes_that_are_proposed_give_the_very_value(value: str) -> None:
    proposed = quoted(f"task.data={value}")
    assert proposed is not None
    (word,) = shlex.split(proposed)
    assert OverridesParser.create().parse_override(word).value() == value


def test_of_a_list_the_items_are_quoted() -> None:
    assert quoted("task.answers=[it's,b]") == shlex.quote('task.answers=["it\'s",b]')


@pytest.mark.parametrize("word", ["dry_run", "é=1", "a b"])
def test_where_quotes_do_not_help_none_are_proposed(word: str) -> None:
    assert quoted(word) is None


def test_a_line_break_in_double_quotes_is_one_and_in_single_quotes_is_not() -> None:
    words = ['a="x\\ny"', "a='x\\ny'", "a=[\"x\\n\",'y\\n']", "a=x\\ny", 'a="x\\\\ny"']
    assert understood(words) == ['a="x\ny"', "a='x\\ny'", "a=[\"x\n\",'y\\n']", "a=x\\ny", 'a="x\\\\ny"']
    assert understood(understood(words)) == understood(words)


def test_a_folder_of_any_name_works_as_proposed(kvgauge: Command, prompts_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "é (a), it's #1 = ünü"
    word = f"results_dir={folder}"
    words = ["method=fullkv", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=1"]
    refused = kvgauge(*words, word)
    assert refused.code == 2
    (better,) = shlex.split(refused.err.rpartition(": write ")[2])
    assert kvgauge(*words, better).code == 0 and (folder / "tiny/tokens/fullkv-full/scores.json").exists()


def test_a_needle_from_the_command_line_has_its_line_break(kvgauge: Command, tmp_path: Path) -> None:
    words = ["method=fullkv", "limit=1", "task.lengths=[300]", "task.max_new_tokens=1", f"results_dir={tmp_path}"]
    assert kvgauge(*words, 'task.needle="\\nEat.\\n"').code == 0
    manifest = json.loads((tmp_path / "tiny/needle/fullkv-full/manifest.json").read_text())
    assert manifest["task_config"]["needle"] == "\nEat.\n"


@pytest.mark.parametrize(
    "word", ["model.chat_arguments={date: x}", "model.chat_arguments.date=x", "+model.chat_arguments.date=x"]
)
def test_arguments_of_the_chat_template_can_be_added(kvgauge: Command, word: str) -> None:
    printed = kvgauge("--cfg", "job", word)
    assert printed.code == 0 and "  chat_arguments:\n    date: x\n" in printed.out


def test_python_takes_arguments_of_the_chat_template(tmp_path: Path) -> None:
    settings = {
        "model.chat_arguments": {"date": "x"},
        "task.data": str(ROOT / "tests/fixtures/longbench"),
        "task.datasets": ["lcc"],
        "task.max_prompt_tokens": 100,
    }
    made = package.run("tiny", "longbench", "fullkv", results=tmp_path, limit=1, settings=settings)
    assert len(made.records()) == 1


def test_files_of_a_new_method_in_any_folder_are_named_as_a_shell_takes_them(kvgauge: Command, tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    lines = kvgauge("new", "method", "spaced", "--method-path", str(folder)).out.splitlines()
    assert shlex.split(lines[3])[2] == f"method_path={folder}"
    assert shlex.split(lines[4], comments=True)[-1] == f"{folder}/test_spaced.py"
    assert shlex.split(lines[5])[0] == f"KVGAUGE_METHOD_PATH={folder}"
