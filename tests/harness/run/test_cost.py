"""A dry run tells what a run will cost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.engine.engine import Engine
from harness.engine.memory import prefill_bytes
from harness.engine.model_spec import ModelSpec
from harness.engine.weights_size import weights_bytes
from harness.run import cost, progress
from harness.run.meter import Meter
from harness.store.costs import Costs
from harness.store.run_log import read_runs
from tests.conftest import ROOT, Command
from tests.harness.engine.test_scheduler import grid
from tests.harness.run.test_progress import NEEDLE, request

SMALL = ("method=[fullkv,snapkv]", "budget=32", "task.lengths=[300]", "task.depths=[0,50]")


def test_steps_of_one_cost_are_told_apart_from_their_tokens() -> None:
    meter = Meter()
    meter.expect([request(100, 0)], 4)
    meter.prefilled(request(100, 0), 3, 5.0)
    for tokens in (3, 3, 2, 1):
        meter.decoded(tokens, [4] if tokens < 3 else [], 2.0 + 0.5 * tokens)
    of_step, of_token = meter.costs.of_step
    assert meter.costs.of_prompt_token == 0.05
    assert of_step == pytest.approx(2.0, rel=0.2) and of_token == pytest.approx(0.5, rel=0.4)
    assert meter.costs.since(meter.costs) == Costs() and meter.costs + Costs() == meter.costs


def test_requests_decode_together_within_the_width_and_within_what_a_kill_may_cost() -> None:
    requests = [request(100, number) for number in range(5)]
    of_one = len(grid())
    for width, unsaved, sizes in (
        (2 * of_one, 9999, [2, 2, 1]),
        (1, 9999, [1] * 5),
        (999, 300, [3, 2]),
        (999, 9, [1] * 5),
    ):
        assert [len(batch) for batch in cost._batches(requests, width, unsaved)] == sizes


def test_a_dry_run_without_a_recorded_run_says_so_and_names_the_one_that_measures(
    kvgauge: Command, tmp_path: Path
) -> None:
    done = kvgauge(*SMALL, "dry_run=true", f"results_dir={tmp_path / 'none'}")
    assert "to generate at most 120, in 4 rows" in done.out and "dry_run=measure" in done.out
    assert "time: unknown" in done.out


@pytest.mark.slow
def test_what_is_recorded_of_another_model_or_machine_does_not_count(
    kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*SMALL, f"results_dir={tmp_path}")
    assert kvgauge(*words).code == 0
    (line,) = read_runs(tmp_path / "tiny/needle")
    assert line.costs.prompts == 2 and line.costs.tokens == line.generated_tokens and line.costs.decode_seconds > 0
    assert line.costs.prefill_seconds + line.costs.decode_seconds + line.costs.other_seconds <= line.seconds
    more = (*words, "task.name=more", "dry_run=true")
    assert "from 1 recorded run of a task on " in kvgauge(*more).out
    assert "time: unknown" in kvgauge(*more, "model.name=other").out
    monkeypatch.setattr(cost, "gethostname", lambda: "elsewhere")
    assert "time: unknown" in kvgauge(*more).out
    assert "cost: none" in kvgauge(*words, "dry_run=true").out


def test_a_dry_run_fits_the_screen_and_refuses_another_word(kvgauge: Command, tmp_path: Path) -> None:
    done = kvgauge(*SMALL, "dry_run=measure", f"results_dir={tmp_path / 'none'}")
    assert done.code == 0 and not (tmp_path / "none").exists()
    own = [line for line in done.out.splitlines() if not line.startswith("note:")]
    assert max(map(len, own)) <= 100 and any("from a calibration with 2 prompts on " in line for line in own)
    refused = kvgauge(*SMALL, "dry_run=maybe")
    assert refused.code == 2 and "dry_run=measure" in refused.err


def test_the_weights_that_a_dry_run_tells_are_those_that_are_loaded() -> None:
    for dtype in ("float32", "bfloat16"):
        engine = Engine.load(ROOT / "models/tiny", dtype=dtype)
        assert isinstance(engine.spec, ModelSpec)
        loaded = sum(weight.numel() * weight.element_size() for weight in engine.model.parameters())
        assert weights_bytes(engine.spec, engine.model.config) == pytest.approx(loaded, rel=0.01)


def test_the_memory_of_a_prefill_is_what_a_card_was_seen_to_take() -> None:
    import torch
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8
    )
    for row in json.loads((ROOT / "benchmarks/results/gpu/memory.json").read_text())["table"]:
        assert prefill_bytes(config, torch.bfloat16, row["tokens"], None) == pytest.approx(
            row["FullKV MB"] * 1e6, rel=0.1
        )


@pytest.mark.slow
@pytest.mark.parametrize("by", ["recorded runs", "calibration"])
def test_the_estimate_is_within_a_factor_of_two(
    by: str, kvgauge: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work_clock: None
) -> None:
    told: list[float] = []
    monkeypatch.setattr(progress.Bar, "_show", lambda self, at_once=False: told.append(self.seconds))
    monkeypatch.setattr(cost, "duration", "{:.3f} s".format)
    results = f"results_dir={tmp_path}"
    if by == "calibration":
        planned = kvgauge(*NEEDLE, results, "dry_run=measure")
        assert not [*tmp_path.iterdir()]
    else:
        assert kvgauge(*NEEDLE, "task.lengths=[400]", "task.name=first", results).code == 0
        planned = kvgauge(*NEEDLE, results, "dry_run=true")
    found = re.search(r"time: about ([\d.]+) s .* from (.*) on ", planned.out)
    assert found and by.rstrip("s") in found[2], planned.out
    told.clear()
    assert kvgauge(*NEEDLE, results).code == 0
    print(f"{by}: {found[1]} s estimated, {told[-1]:.3f} s taken")
    assert 0.5 <= float(found[1]) / told[-1] <= 2.0
