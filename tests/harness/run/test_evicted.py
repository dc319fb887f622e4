"""Records tell what a row held while it decoded, by the schedule that the engine follows; old records have none."""

from __future__ import annotations

import json

import pytest
from msgspec import json as msgspec_json

from harness.compression.eviction import Eviction, Schedule
from harness.engine.prefill import Kept
from harness.report.notes import eviction_notes
from harness.report.page.kept import held_by_step
from harness.results import Cell, CellResult, Record, TaskResult
from harness.run.evicted import evicted
from methods.decoding import ScoredEntries
from methods.h2o_decode import HeavyHitters
from methods.knorm import SmallKeys

RECORD = Record("0", {}, [], {}, 10, None)


def kept(evictor: object, entries: int, budget: int) -> Kept:
    """What two layers keep, beside one with a window whose entries take 500 bytes."""
    eviction = Eviction(evictor, (budget,) * 2)  # type: ignore[arg-type]
    return Kept([], (entries,) * 2, 1000 * entries + 500, "", 0, eviction=eviction, evicting_bytes=1000 * entries)


def test_a_row_that_evicts_at_every_token_holds_its_budget_and_the_new_token() -> None:
    found = evicted(kept(HeavyHitters(1, 4, False), 8, 8), 20, 0, [11])
    assert found is not None
    assert (found.target, found.peak, found.mean) == (8, 9, 9)
    assert (found.peak_bytes, found.mean_bytes) == (9500, 9500)
    assert found.steps == tuple(range(11))
    assert found.entries == (8, *[9] * 10)


def test_a_prompt_below_the_budget_grows_to_it() -> None:
    found = evicted(kept(HeavyHitters(1, 4, False), 5, 8), 5, 0, [6])
    assert found is not None
    assert found.entries == (5, 6, 7, 8, 9, 9)
    assert (found.peak, found.mean) == (9, pytest.approx(7.8))


def test_a_question_is_one_call_and_a_whole_prompt_is_the_peak() -> None:
    found = evicted(kept(ScoredEntries(4, SmallKeys(), None, False), 30, 10), 30, 3, [8])
    assert found is not None
    assert found.entries == (30, 33, 34, 35, 36, 11, 12, 13, 14)
    assert (found.peak, found.target) == (36, 10)


def test_a_share_of_all_tokens_grows_with_them_and_several_answers_count_together() -> None:
    found = evicted(kept(ScoredEntries(2, SmallKeys(), 0.5, False), 20, 20), 20, 0, [3, 9])
    assert found is not None
    assert found.entries == (20, 21, 22, 12, 13, 13, 14, 14, 15)
    assert found.target == 14
    assert found.mean == pytest.approx((21 + 22 + 21 + 22 + 12 + 13 + 13 + 14 + 14 + 15) / 10)


def test_a_long_answer_has_a_curve_of_few_points_with_both_ends() -> None:
    found = evicted(kept(HeavyHitters(1, 4, False), 8, 8), 20, 0, [5001])
    assert found is not None
    assert len(found.steps) == 65
    assert (found.steps[0], found.steps[-1]) == (0, 5000)


def test_the_curve_is_that_of_a_schedule() -> None:
    evictor = ScoredEntries(3, SmallKeys(), None, False)
    schedule, seen = Schedule(evictor, 10, 14, 14), []
    for _ in range(12):
        seen.append(schedule.held + 1)
        schedule.call(1)
    found = evicted(kept(evictor, 14, 10), 14, 0, [13])
    assert found is not None
    assert found.entries == (14, *seen)


def test_records_without_it_are_written_as_before_and_read_again() -> None:
    held = evicted(kept(HeavyHitters(1, 4, False), 8, 8), 20, 0, [11])
    assert "evicted" not in RECORD.to_json()
    old = msgspec_json.decode(json.dumps(RECORD.to_json()), type=Record)
    assert old.evicted is None
    new = Record("0", {}, [], {}, 10, None, evicted=held)
    assert msgspec_json.decode(json.dumps(new.to_json()), type=Record).evicted == held
    assert evicted(Kept([], (8, 8), 1, "", 0), 20, 0, [11]) is None


def test_tables_note_it_and_the_page_draws_a_curve_of_every_cell_that_has_it() -> None:
    held = evicted(kept(HeavyHitters(1, 4, False), 5, 8), 5, 0, [6])
    cells = (
        CellResult(Cell("h2o_decode", "8"), 1, (Record("0", {}, [], {}, 10, None, kept=(5, 5), evicted=held),)),
        CellResult(Cell("fullkv", "full"), 1, (RECORD,)),
    )
    (note,) = eviction_notes(cells)
    assert note.endswith("after eviction / most / mean: h2o_decode-8 8 / 9 / 7.8.")
    panels = held_by_step(TaskResult("m", "t", (), None, "", cells, None))
    assert panels is not None
    (((panel,),),) = (panels.rows,)
    assert panel is not None
    assert [round(tile[3]) for tile in panel.tiles] == [56, 67, 78, 89, 100, 100]
    assert held_by_step(TaskResult("m", "t", (), None, "", cells[1:], None)) is None
