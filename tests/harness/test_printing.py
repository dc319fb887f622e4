"""Printing costs nothing that was computed, wherever standard output leads."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest

from harness.cli import main
from harness.cli.commands import COMMANDS
from harness.printing import unfailing, unfailing_output

ROOT = Path(__file__).parents[2]


def full_device() -> TextIO:
    return open("/dev/full", "w", encoding="utf-8")


def closed_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", encoding="utf-8")


def ascii_only() -> TextIO:
    return open(os.devnull, "w", encoding="ascii")


def latin_1() -> TextIO:
    return open(os.devnull, "w", encoding="latin-1")


PLACES = [full_device, closed_pipe, ascii_only, latin_1]


def code_of(stdout: TextIO, *words: str) -> int:
    """The exit code of a command that prints to ``stdout``; any other exception is the test's failure."""
    with pytest.MonkeyPatch.context() as patch, stdout:
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "argv", ["run.py", *words])
        try:
            main.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        return 0


@pytest.mark.parametrize("place", PLACES)
def test_a_run_ends_in_its_page_and_with_its_code_wherever_it_prints(
    place: Callable[[], TextIO], prompts_file: Path, tmp_path: Path
) -> None:
    words = ("method=snapkv", "budget=32", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2")
    assert code_of(place(), *words, f"results_dir={tmp_path / 'results'}") == 0
    assert (tmp_path / "results/report/index.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_every_command_ends_wherever_it_prints(place: Callable[[], TextIO], prompts_file: Path, tmp_path: Path) -> None:
    results = str(tmp_path / "results")
    words = ("method=snapkv", "budget=32", "task=tokens", f"task.prompts={prompts_file}", "task.max_new_tokens=2")
    assert code_of(ascii_only(), *words, f"results_dir={results}") == 0
    read = {name: (results,) for name in ("status", "report", "verify", "score")}
    other = {"list": (), "show": ("method", "snapkv"), "completion": ("bash",), "doctor": ()}
    for name, arguments in {**read, **other}.items():
        assert code_of(place(), name, *arguments) == 0, name
    for name in COMMANDS:
        assert code_of(place(), name, "--help") == 0, name
    assert code_of(place(), "--help") == 0
    assert code_of(place(), *words, "dry_run=true") == 0
    assert code_of(place(), *words, "budget=[") == 2


def test_a_character_that_a_terminal_cannot_show_is_replaced_and_the_rest_stays() -> None:
    bytes_ = io.BytesIO()
    stream = unfailing(io.TextIOWrapper(bytes_, encoding="ascii"))
    stream.write("café – 95 % … 語 \ud800\n")
    stream.flush()
    assert bytes_.getvalue() == b"caf? - 95 % ~ ? ?\n"


def test_a_full_device_is_named_once_and_a_closed_pipe_not_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    for place, said in ((full_device, 1), (closed_pipe, 0)):
        with place() as inner:
            stream = unfailing(inner)
            for _ in range(3):
                stream.write("a line\n")
                stream.flush()
        told = capsys.readouterr().err
        assert told.count("what is printed has no place to go (No space left on device)") == said
        assert told.count("\n") == said


def test_output_that_is_closed_from_the_start_gives_its_number_to_no_file() -> None:
    script = (
        "from harness.printing import unfailing_output\n"
        "with unfailing_output():\n"
        "    print('lost')\n"
        "    import sys; sys.exit(open('/dev/null').fileno() < 3)\n"
    )
    done = subprocess.run(["/bin/sh", "-c", f'exec {sys.executable} -c "{script}" >&- 2>&-'], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_streams_come_back_after_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with unfailing_output():
        print("shown")
        assert (sys.stdout, sys.stderr) != before
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "shown\n"


@pytest.mark.slow
def test_a_run_into_a_closed_pipe_is_whole_as_a_process_too(prompts_file: Path, tmp_path: Path) -> None:
    run = (
        f"{sys.executable} run.py method=snapkv budget=32 task=tokens task.prompts={prompts_file} "
        f"task.max_new_tokens=2 results_dir={tmp_path / 'results'}; echo $? > {tmp_path / 'code'}"
    )
    ended = subprocess.run(["/bin/sh", "-c", f"({run}) | true"], cwd=ROOT, capture_output=True, check=True)
    assert (tmp_path / "code").read_text() == "0\n"
    assert b"rror" not in ended.stderr
    assert (tmp_path / "results/report/index.html").exists()
