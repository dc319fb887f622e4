"""What benchmarks measure with: the scripts run, checks can fail, timers count nothing twice."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from harness.bench import checks, methods, parts, profile
from harness.bench.memory import peak_of_a_process
from harness.bench.profile import Stopwatch, grid_profile
from harness.bench.setup import grid_of
from harness.bench.subject import Subject
from harness.engine.rows import Generated
from harness.kernels import Kernels
from tests.conftest import ROOT, Command
from tests.harness.tiny import NAME, config, tiny


def loaded(_: Kernels) -> PreTrainedModel:
    return tiny()


@pytest.fixture
def subject() -> Subject:
    """Six cells of a tiny model."""
    grid = grid_of(["method=[fullkv,h2o,snapkv]", "budget=[16,32]"])
    return Subject(NAME, loaded, config(), *grid, 6)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Run a script, small and in this process, and return what it wrote, by the files' names."""

    def run(script: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [script, "--quick", "--out", str(tmp_path)])
        runpy.run_path(str(ROOT / "benchmarks" / script), run_name="__main__")
        return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    yield run
    for name in ("shapes", "questions"):
        sys.modules.pop(name, None)


def check_gpu(read: dict[str, Any], out: Path) -> None:
    assert set(read) == {"grid", "methods", "memory", "checks"}
    ((grid,), (raw,)) = read["grid"]["table"], read["grid"]["raw"]
    weights, entries = (
        8 * (512 * (2 * 512 + 2 * 256 + 3 * 1408) + 2 * 512) + 512 + 1024 * 512,
        2 * 8 * 4 * 64 * 80,
    )
    # Two steps, float32, two prompts of 80 tokens, which their rows share.
    assert raw["read_bytes"] == 2 * 4 * (weights + 2 * entries) and grid["decode GB/s"] > 0
    (row,) = read["checks"]["table"]
    assert (
        row["rows"] == 4 and row["other in reverse order"] == row["other alone"] == 0 and row["largest margin"] is None
    )
    assert 0 <= row["attention error"] < 1e-5
    assert read["methods"]["table"][0]["cell"] == "fullkv-full"
    assert all(each["peak MB"] >= 0 and each["decode ms per token"] > 0 for each in read["methods"]["table"])
    assert "--out" not in read["grid"]["command"] and str(out) not in json.dumps(read["grid"]["command"])


def test_every_part_of_the_one_command_for_a_gpu_is_measured(
    program: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a process for each peak of memory, of which another test has one."""
    for module in (methods, parts):
        monkeypatch.setattr(module, "peak_bytes", lambda *_: 1)
    check_gpu(program("gpu.py"), tmp_path)


def test_methods_without_memory_start_no_process_for_their_peaks(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "peak_bytes", lambda *_: pytest.fail("a peak was measured"))
    parts.measure(subject, ["methods"], [40], 1, 1, tmp_path, lambda _: None)
    table = json.loads((tmp_path / "methods.json").read_text())["table"]
    assert [row["cell"] for row in table] == ["fullkv-full", "h2o-32", "snapkv-32"]
    assert all(row["peak MB"] is None and row["prefill s"] > 0 for row in table)


@pytest.mark.slow
def test_the_peak_of_memory_is_that_of_a_process_of_its_own(subject: Subject) -> None:
    assert 0 <= peak_of_a_process(subject, subject.variants, 400) < 2**31


@pytest.mark.slow
def test_prompts_that_join_are_measured_in_fewer_and_wider_steps(program: Callable[[str], dict[str, Any]]) -> None:
    (row,) = program("refill.py")["refill"]["table"]
    assert row["with"] < row["steps without"] and row["rows with"] > row["rows per step without"]


@pytest.mark.slow
def test_questions_on_one_context_prefill_it_once(program: Callable[[str], dict[str, Any]]) -> None:
    (row,) = program("questions.py")["questions"]["table"]
    assert row["prefilled apart"] == row["questions"] * row["prefilled together"]
    assert row["of questions"] == 32 * row["rows"]


@pytest.mark.slow
def test_each_feature_is_measured_beside_its_plain_run(program: Callable[[str], dict[str, Any]]) -> None:
    rows = program("features.py")["features"]["table"]
    assert len(rows) >= 5 and len({row["feature"] for row in rows}) == len(rows)
    assert all(row["words"] != row["plain"] and row["times plain"] > 0 for row in rows)


@pytest.mark.slow
def test_a_grid_on_text_is_held_against_generate_and_its_load_is_apart(
    program: Callable[[str], dict[str, Any]],
) -> None:
    (row,) = program("real_model.py")["real_model"]["table"]
    assert row["cells"] == 21 and row["rows"] > 2 and row["times stock"] > 0 and row["load s"] > 0


@pytest.mark.slow
def test_libraries_that_round_otherwise_are_held_against_float64_and_each_other(
    program: Callable[[str], dict[str, Any]],
) -> None:
    found = program("rounding.py")["rounding"]
    pairs = {(row["products"], row["against"]) for row in found["table"]}
    assert {against for _, against in pairs} == {"float64", "float32 by torch"} and len(pairs) == len(found["table"])
    assert found["raw"][1]["heads"] > 100 and found["raw"][1]["answers"] == 21


def test_projection_is_made_of_what_was_measured(program: Callable[[str], dict[str, Any]]) -> None:
    shared, alone, stock = program("projection.py")["projection"]["table"]
    assert 5 < alone["hours"] / shared["hours"] < 500 and 5 < stock["hours"] / shared["hours"] < 500


def test_row_that_gives_other_tokens_among_others_is_counted(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = subject.engine()
    assert checks.row_checks(subject, engine, 60, 2)["other alone"] == 0
    real = checks.decoded

    def spoiled(subject: Subject, engine: object, rows: list[object]) -> list[Generated]:
        first, *others = real(subject, engine, rows)  # type: ignore[arg-type]
        return [Generated((*first.tokens[:2], first.tokens[2] ^ 1, *first.tokens[3:])), *others]

    monkeypatch.setattr(checks, "decoded", spoiled)
    found = checks.row_checks(subject, engine, 60, 2)
    assert found["other alone"] == 1 and found["other in reverse order"] == 2 and found["largest margin"] > 0


def test_timers_count_nothing_twice_and_leave_functions_as_they_were(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [getattr(owner, name) for owner, name, _ in profile._PARTS]
    found = grid_profile(subject, subject.engine(), 60, subject.variants)
    assert [getattr(owner, name) for owner, name, _ in profile._PARTS] == before
    assert set(found) == {profile.PREFILL, profile.DECODE, *(part for _, _, part in profile._PARTS)}
    clock = iter(range(100))
    monkeypatch.setattr(profile, "seconds", lambda: next(clock))
    watch = Stopwatch()
    watch.around("outer", lambda: watch.around("inner", lambda: None)())()
    assert watch.exclusive == {"outer": 2, "inner": 1}


def test_bench_needs_a_full_cache_to_hold_methods_against(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge("bench", "method=snapkv", "--tokens", "100", "--to", str(tmp_path))
    assert done.code == 2 and "let method= name fullkv" in done.err
    done = kvgauge("bench", "--rounds", "0")
    assert done.code == 2 and "--rounds 0 is not 1 or more" in done.err
