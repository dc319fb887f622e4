"""Completion: what a shell offers, that it offers what there is, and that a TAB is quick."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from harness.cli.commands import COMMANDS
from harness.cli.commands.completion import SCRIPTS, candidates
from harness.compression.selection import Selection
from harness.engine.model_spec import ModelSpec
from harness.engine.settings import EngineSettings
from harness.report.wandb import Wandb
from harness.run.configure import RunSettings
from harness.values import choices, field_types
from methods.pyramidkv import PyramidKV
from methods.snapkv import SnapKV
from tests.conftest import ROOT, Command


def methods(beginning: str, before: str = "") -> list[str]:
    """The names of methods that begin like this, each with a text before it."""
    names = sorted(path.stem for path in (ROOT / "conf/method").glob("*.yaml"))
    return [before + name for name in names if name.startswith(beginning)]


TORCH_FREE = """
import sys
sys.argv = ["kvgauge", "completion", "--words", "kvgauge method=py"]
from kvgauge.__main__ import main
main()
print(sorted({"torch", "hydra", "omegaconf", "rich", "numpy"} & set(sys.modules)))
"""
TAB = """
source <(kvgauge completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=(kvgauge)
_kvgauge
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_flags_of_a_command_are_those_that_it_takes(command: str) -> None:
    parser = argparse.ArgumentParser()
    import_module(f"harness.cli.commands.{COMMANDS[command]}").arguments(parser)
    flags = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert set(candidates(f"kvgauge {command} --")) == flags


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kvgauge re", ["report", "results_dir=", "retry_errors="]),
        ("kvgauge method=pyr", methods("pyr", "method=")),
        ("kvgauge method=[snapkv,pyr", methods("pyr", "method=[snapkv,")),
        ("kvgauge budget=[64,12", ["budget=[64,12%", "budget=[64,128"]),
        ("kvgauge model=llama31", ["model=llama31_8b"]),
        ("kvgauge task=needle_m", ["task=needle_magic", "task=needle_many"]),
        ("kvgauge method.snapkv.k", ["method.snapkv.kernel="]),
        ("kvgauge task=longbench task.code", ["task.code_similarity="]),
        ("kvgauge task=needle_published task.answers", ["task.answers="]),
        ("kvgauge task.dep", ["task.depths="]),
        ("kvgauge engine.wi", ["engine.width="]),
        ("kvgauge selection.ties=", ["selection.ties=stable", "selection.ties=torch"]),
        ("kvgauge show me", ["method"]),
        ("kvgauge show method s", methods("s")),
        ("kvgauge show p", ["prompt"]),
        ("kvgauge show prompt task=js", ["task=jsonl"]),
        ("kvgauge show prompt task=jsonl task.sc", ["task.scores="]),
        ("kvgauge new ", ["method", "task"]),
        ("kvgauge task.chat=", [f"task.chat={value}" for value in ("auto", "false", "null", "true")]),
        ("kvgauge list t", ["tasks", "trackers"]),
        ("kvgauge completion ", ["bash", "fish", "zsh"]),
        ("kvgauge 'method=[h", methods("h", "method=[")),
        ("kvgauge report resu", []),
        ("kvgauge nothing=", []),
        ("OMP_NUM_THREADS=1 kvgauge method=pyr", methods("pyr", "method=")),
        ("cd kvgauge && kvgauge show me", ["method"]),
        ("kvgauge hydra/launcher=s", ["hydra/launcher=slurm"]),
        ("kvgauge retry_errors=", ["retry_errors=false", "retry_errors=true"]),
        ("kvgauge bench method=pyr", methods("pyr", "method=")),
        ("kvgauge bench re", ["results_dir=", "retry_errors="]),
    ],
)  # fmt: skip
def test_a_line_is_ended_with_what_there_is(line: str, words: list[str]) -> None:
    assert candidates(line) == words


def test_the_scorer_of_a_wrapper_is_one_of_the_methods() -> None:
    assert "method.adakv.scorer=" in candidates("kvgauge method.adakv.s")
    assert candidates("kvgauge method.adakv.scorer=snapkv")[:1] == ["method.adakv.scorer=snapkv_kvpress"]
    assert candidates("kvgauge method.chunkkv.scorer=[knorm,h2")[:1] == ["method.chunkkv.scorer=[knorm,h2o"]


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("", RunSettings), ("selection.", Selection), ("engine.", EngineSettings), ("model.", ModelSpec),
        ("tracker.", Wandb),
        ("method.snapkv.", SnapKV), ("method.pyramidkv.", PyramidKV),
    ],
)  # fmt: skip
def test_the_choices_of_a_setting_are_those_of_its_field(group: str, kind: type) -> None:
    for name, annotation in field_types(kind).items():
        wanted = sorted(
            [
                *choices(annotation),
                *(("true", "false") if re.search(r"\bbool\b", str(annotation)) or annotation is bool else ()),
            ]
        )
        found = [word.removeprefix(f"{group}{name}=") for word in candidates(f"kvgauge {group}{name}=")]
        assert found == wanted, name


def test_an_empty_line_offers_every_command_and_setting() -> None:
    found = candidates("kvgauge ")
    assert set(COMMANDS) <= set(found)
    assert {"method=", "budget=", "limit=", "method_path="} <= set(found) and "hydra=" not in found


def test_methods_outside_are_offered_where_the_line_names_their_folder(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method/mine.yaml").write_text("label: mine\nwindow: 8\n")
    assert candidates(f"kvgauge method_path={tmp_path} method=mi") == ["method=mine"]
    assert candidates(f"kvgauge method_path=[{tmp_path}] method.mine.w") == ["method.mine.window="]
    assert candidates(f"kvgauge show --method-path {tmp_path} method mi") == ["mine"]


def test_a_tab_imports_nothing_that_takes_time() -> None:
    done = subprocess.run([sys.executable, "-c", TORCH_FREE], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split("\n") == [*methods("py", "method="), "[]", ""], done.stderr


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with the command on it."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "kvgauge").write_text(f'#!/bin/sh\ncd {str(ROOT)!r} && exec {sys.executable} -m kvgauge "$@"\n')
    (folder / "kvgauge").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(
    ("line", "replies"),
    [
        # What stands behind the last = is what Bash replaces.
        ("kvgauge method=[fullkv,p", methods("p", "[fullkv,")),
        ("kvgauge rep", ["report"]),
        ("kvgauge report --t", ["--task-path", "--to"]),
    ],
)
def test_bash_completes_with_the_script_sourced(line: str, replies: list[str], path: str) -> None:
    done = subprocess.run(
        ["bash", "-c", TAB, "bash", line], env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == replies, done.stderr


@pytest.mark.parametrize("shell", SCRIPTS)
def test_every_shell_has_its_script(shell: str, kvgauge: Command) -> None:
    shown = kvgauge("completion", shell)
    assert shown.code == 0 and "kvgauge completion --words" in shown.out.replace(
        '"${COMP_WORDS[0]}"', "kvgauge"
    ).replace('"${words[1]}"', "kvgauge")


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "got no shell: give one of bash, zsh, fish"), (["ksh"], "does not take ksh: did you mean zsh?")],
)
def test_bad_words_are_one_line(kvgauge: Command, words: list[str], message: str) -> None:
    failed = kvgauge("completion", *words)
    assert failed.code == 2
    assert message in failed.err and failed.err.count("\n") == 1
