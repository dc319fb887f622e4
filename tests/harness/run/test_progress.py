"""Progress tells the truth, and what a kill costs is bounded."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from harness.engine.prompt import Prompt
from harness.engine.request import Request
from harness.run import progress
from harness.run.meter import Meter
from harness.task import Example
from tests.conftest import KILLS, ROOT, Command
from tests.harness.engine.test_scheduler import grid
from tests.harness.folders import cells, records
from tests.harness.run.kills import NEEDLE, kill, table

LONGBENCH = (
    "method=[fullkv,snapkv]", "budget=32", "task=longbench", f"task.data={ROOT / 'tests/fixtures/longbench'}",
    "task.datasets=[trec,qasper,lcc,gov_report,passage_count]",
)  # fmt: skip


def request(tokens: int, number: int) -> Request:
    return Request(
        Prompt(Example(id=f"p{number}", prompt=()), np.zeros(tokens, "<i4"), "0" * 64, (), False, tokens), grid(), {}
    )


def test_the_estimate_counts_tokens_and_is_exact_where_each_costs_the_same() -> None:
    asked = [request(100 * (number + 1), number) for number in range(4)]  # three variants each
    meter = Meter()
    meter.expect(asked, 10)
    assert meter.seconds_left is None
    meter.prefilled(asked[0], 3, 10.0)  # 0.1 s a token
    for step in range(1, 11):
        meter.decoded(3, [10] * 3 if step == 10 else [], 6.0)  # 2 s a token
    assert meter.seconds_left == pytest.approx(0.1 * 900 + 6.0 * 3 * 10)
    for one in asked[1:]:
        meter.prefilled(one, 3, 0.1 * len(one.prompt.ids))
        for step in range(1, 11):
            meter.decoded(3, [10] * 3 if step == 10 else [], 6.0)
    assert meter.seconds_left == pytest.approx(0.0)


def test_variants_that_share_a_row_cost_one() -> None:
    asked = [request(100, number) for number in range(2)]
    meter = Meter()
    meter.expect(asked, 10)
    meter.prefilled(asked[0], 1, 1.0)
    for step in range(1, 11):
        meter.decoded(1, [10] if step == 10 else [], 2.0)
    assert meter.seconds_left == pytest.approx(1.0 + 20.0)


def test_answers_that_end_early_shorten_the_estimate() -> None:
    asked = [request(100, number) for number in range(10)]
    meter = Meter()
    meter.expect(asked, 1000)
    meter.prefilled(asked[0], 3, 1.0)
    meter.decoded(3, [], 1.0)
    assert meter.seconds_left is not None and meter.seconds_left > 5000
    meter.decoded(12, [5] * 3, 4.0)  # five tokens each
    assert meter.seconds_left == pytest.approx(9 * (1.0 + 5.0))


@pytest.mark.slow
def test_the_lines_name_tokens_and_what_is_left_and_fit_the_screen(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY_SECONDS", 0.0)
    done = kvgauge(*NEEDLE, f"results_dir={tmp_path}")
    lines = [line for line in done.out.splitlines() if " of 15 prompts" in line]
    assert lines[-1].startswith("15 of 15 prompts in ")
    assert any("; prefilled " in line and " tokens, decoded " in line and line.endswith(" left") for line in lines)
    assert max(map(len, lines)) <= 100


@pytest.mark.slow
@pytest.mark.parametrize("words", [(*NEEDLE, "engine.width=16"), LONGBENCH])
def test_from_a_quarter_of_the_run_on_the_estimate_is_within_a_factor_of_two(
    words: tuple[str, ...], kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work_clock: None
) -> None:
    """In batches, as in the last one nothing tells when its last answers end."""
    told: list[tuple[float, float | None]] = []

    class Told(progress.Bar):
        def _show(self, at_once: bool = False) -> None:
            told.append((time.monotonic(), self.seconds_left))

    monkeypatch.setattr("harness.run.execute.Bar", Told)
    done = kvgauge(*words, f"results_dir={tmp_path}")
    assert done.code == 0, done.err
    begun, end = told[0][0], told[-1][0]
    shares = [
        (left or 0.0) / (end - now)
        for now, left in told
        if begun + 0.25 * (end - begun) <= now <= begun + 0.95 * (end - begun)
    ]
    print(f"{end - begun:.1f} s; estimate / truth from {min(shares):.2f} to {max(shares):.2f}")
    assert min(shares) >= 0.5 and max(shares) <= 2.0


@pytest.mark.slow
@pytest.mark.long
def test_kills_at_random_cost_no_more_than_the_setting_says(
    kvgauge: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unsaved = 600
    words = [*NEEDLE, f"engine.unsaved_tokens={unsaved}"]
    whole, results = tmp_path / "whole", tmp_path / "results"
    kills = kill(words, results, KILLS)
    with capsys.disabled():
        print(f"\n{table(kills, unsaved)}")
    assert len(kills) == KILLS and any(one.lost for one in kills)
    assert all(sum(one.lost) <= unsaved or len(one.lost) == 1 for one in kills)
    assert kvgauge(*NEEDLE, f"results_dir={whole}").code == 0
    assert kvgauge(*words, f"results_dir={results}").code == 0
    for name, cell in cells(whole, "needle").items():
        assert sorted(map(str, records(cell))) == sorted(map(str, records(results / "tiny/needle" / name)))
