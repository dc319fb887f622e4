"""math-verify in a process of its own: its verdicts, and what does not disturb a run."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import pytest

from harness.engine.time_limit import TimeLimit, time_limit
from harness.errors import ConfigError
from tasks.maths import judge
from tasks.maths.judge import JUDGE, Judge, check_installed

ROOT = Path(__file__).parents[3]
PART = ROOT / "tests/golden/maths/answer_cases.json"
WHOLE = ROOT.parent / "shared/benchmarks/math/answer_cases.json"
ENDLESS = "\\boxed{9^{9^{9}}}"


@pytest.mark.parametrize("golden", [PART, pytest.param(WHOLE, marks=pytest.mark.slow)])
def test_verdicts_are_math_verify_s_own(golden: Path) -> None:
    if not golden.is_file():
        pytest.skip(f"{golden} is not here: it is golden data outside the repository")
    cases = json.loads(golden.read_text(encoding="utf-8"))["cases"]
    assert len(cases) == (224 if golden == WHOLE else 51)
    assert [JUDGE.same(case["gold"], case["output"]) for case in cases] == [case["math_verify"] for case in cases]


def test_any_thread_may_ask_and_alarms_stay_as_they_are() -> None:
    answers: list[bool] = []
    before = signal.getsignal(signal.SIGALRM)
    asking = threading.Thread(target=lambda: answers.append(JUDGE.same("\\frac{1}{2}", "\\boxed{0.5}")))
    asking.start()
    asking.join()
    assert answers == [True] and signal.getsignal(signal.SIGALRM) == before


def test_comparison_that_takes_for_ever_says_no_and_costs_no_later_one() -> None:
    impatient = Judge(seconds=1.0)
    assert not impatient.same("2", ENDLESS)
    assert JUDGE.same("2", "\\boxed{2}") and not JUDGE.same("2", "\\boxed{3}")


def test_time_limit_of_a_run_ends_a_comparison_and_its_answer_is_given_to_no_later_one() -> None:
    assert JUDGE.same("1", "1")  # the process is there
    with pytest.raises(TimeLimit), time_limit(0.2):
        JUDGE.same("2", ENDLESS)
    assert JUDGE.same("2", "\\boxed{2}")


def test_without_math_verify_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"task=math500 .*not installed: pip install 'kvgauge\[maths\]'$"):
        check_installed("math500")
