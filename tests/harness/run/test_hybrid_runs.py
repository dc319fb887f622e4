"""Runs on a model some of whose layers have windows: what tables say of both kinds of layers, and what checks find."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.harness.engine.test_hybrid import FAMILIES, folder_of
from tests.harness.engine.test_stock import config_of, save
from tests.harness.folders import cells, records
from tests.harness.tiny import prompt_of

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
NOTE = "1 of this model's 2 layers attend to a sliding window of 16 tokens"


def words_of(model: Path, folder: Path, methods: str) -> tuple[str, ...]:
    (folder / "prompts.json").write_text(json.dumps({f"p{n}": list(prompt_of(n)) for n in (10, 40, 61)}))
    return (
        "model=hf", f"model.path={model}", "model.name=hybrid", f"method=[{methods}]", "budget=12", "task=tokens",
        f"task.prompts={folder / 'prompts.json'}", "task.max_new_tokens=5", f"results_dir={folder / 'results'}",
    )  # fmt: skip


def test_tables_tell_of_both_kinds_of_layers_and_checks_find_nothing_wrong(kvgauge: Command, tmp_path: Path) -> None:
    words = words_of(folder_of("gemma3", tmp_path / "model"), tmp_path, "fullkv,snapkv,adakv")
    planned = kvgauge(*words, "dry_run=true")
    assert planned.code == 0 and NOTE in planned.told
    done = kvgauge(*words)
    assert done.code == 0, done.err
    assert NOTE in (tmp_path / "results/report/hybrid/tokens/table.md").read_text("utf-8")
    entry, kept = 2 * 2 * 8 * 4, cells(tmp_path / "results", model="hybrid")
    of_full, of_snap = (
        {record["example_id"]: record for record in records(kept[name])} for name in ("fullkv-full", "snapkv-12")
    )
    assert of_full["p61"]["kept"] == [61] and of_full["p61"]["kept_bytes"] == (61 + 15) * entry
    assert of_snap["p61"]["kept"] == [12] and of_snap["p61"]["retention"] == pytest.approx(12 / 61)
    # With granularity=query_head the layer that is compressed has twice as many heads.
    assert of_snap["p61"]["kept_bytes"] == (2 * 12 + 15) * entry
    checked = kvgauge(
        "verify", str(tmp_path / "results"), "--set", "model=hf", "--set", f"model.path={tmp_path / 'model'}"
    )
    assert checked.code == 0, checked.told
    assert "wrong" not in checked.told


def test_methods_are_refused_before_weights_are_read_where_no_layer_can_be_compressed(
    kvgauge: Command, tmp_path: Path
) -> None:
    family, changes = FAMILIES["mistral"]
    config_of(family, **changes).save_pretrained(tmp_path / "model")
    refused = kvgauge(*words_of(tmp_path / "model", tmp_path, "fullkv,snapkv"))
    assert refused.code == 2 and refused.err.count("\n") == 1
    assert "method=snapkv has nothing to compress in this model, all of whose layers keep a window" in refused.err
    save(config_of(family, **changes), tmp_path / "model")
    done = kvgauge(*words_of(tmp_path / "model", tmp_path, "fullkv"))
    assert done.code == 0, done.err
    (folder,) = cells(tmp_path / "results", model="hybrid").values()
    assert [(record["kept"], record["retention"], record["kept_bytes"]) for record in records(folder)][-1] == (
        [], 1.0, 2 * 15 * 2 * 2 * 8 * 4
    )  # fmt: skip
    assert kvgauge("verify", str(tmp_path / "results")).code == 0
