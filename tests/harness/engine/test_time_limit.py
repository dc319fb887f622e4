"""The time that a prompt may take: what hangs is an error record, and the alarm is left as it was."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.compression.method import LayerState
from harness.compression.scorers import WindowAttention
from harness.engine.time_limit import TimeLimit, check_time_limit, time_limit
from harness.errors import ConfigError
from tasks.needle.task import Needle
from tests.conftest import Command
from tests.harness.folders import cells, records


@pytest.mark.slow
def test_method_that_hangs_is_an_error_record_and_the_others_have_their_results(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kvgauge(*grid, f"results_dir={tmp_path / 'calm'}")
    raw, slept = WindowAttention.score, []

    def hanging(scorer: WindowAttention, layer: LayerState) -> Any:
        if layer.keys.shape[1] == 65 and layer.index == 3:
            with contextlib.suppress(Exception):
                time.sleep(60)
                slept.append(layer.index)
        return raw(scorer, layer)

    monkeypatch.setattr(WindowAttention, "score", hanging)
    done = kvgauge(
        *grid, "engine.width=64", "engine.time_limit_seconds=3", "wide=true", f"results_dir={tmp_path / 'hung'}"
    )
    assert not slept
    assert done.code == 1
    assert "errors of snapkv-64: 1, the first in example p65: the prefill, at WindowAttention(window=8" in done.out
    assert "took longer than engine.time_limit_seconds=3" in done.out
    calm, hung = (
        {name: {r["example_id"]: r for r in records(cell)} for name, cell in cells(tmp_path / run).items()}
        for run in ("calm", "hung")
    )
    for name, of in hung.items():
        for example, record in of.items():
            if example == "p65" and name.startswith(("snapkv", "pyramidkv")):
                assert record["error"] and not record["tokens"]
            else:
                assert record == calm[name][example]


@pytest.mark.slow
def test_text_whose_scoring_hangs_is_an_error_record(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Needle.score

    def hanging(task: Needle, example: Any, text: Any) -> Any:
        while example.id == "300-50":
            pass
        return score(task, example, text)

    monkeypatch.setattr(Needle, "score", hanging)
    words = ("method=fullkv", "task.lengths=[300]", "task.depths=[0,50,100]", "engine.time_limit_seconds=3")
    done = kvgauge(*words, f"results_dir={tmp_path}")
    assert done.code == 1
    by_id = {r["example_id"]: r for r in records(cells(tmp_path, "needle")["fullkv-full"])}
    assert by_id["300-50"]["error"].startswith("scoring the text took longer than engine.time_limit_seconds=3")
    assert by_id["300-50"]["error"].endswith("the text is kept, and kvgauge score has no such limit")
    assert by_id["300-50"]["tokens"] and by_id["300-50"]["text"] and by_id["300-50"]["scores"] == {}
    assert by_id["300-0"]["error"] is None and by_id["300-100"]["scores"]
    monkeypatch.undo()
    assert kvgauge("score", str(tmp_path)).code == 0
    again = {r["example_id"]: r for r in records(cells(tmp_path, "needle")["fullkv-full"])}
    assert again["300-50"]["error"] is None and again["300-50"]["scores"]


def test_an_alarm_that_rings_while_it_is_turned_off_does_not_ring_again(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, calls = signal.setitimer, []

    def late(which: int, seconds: float, interval: float = 0.0) -> object:
        calls.append(seconds)
        if calls.count(0) == 1 and seconds == 0:
            raise TimeLimit
        return turn(which, seconds, interval)

    monkeypatch.setattr(signal, "setitimer", late)
    with pytest.raises(TimeLimit), time_limit(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_time_limit_leaves_the_alarm_as_it_was_and_is_refused_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeLimit), time_limit(0.05):
        time.sleep(5)
    with time_limit(60):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before
    refused: list[Exception] = []

    def elsewhere() -> None:
        try:
            check_time_limit()
        except ConfigError as error:
            refused.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in str(refused[0])
