"""A run with storages: what it records and shows, what is refused, and that other settings never mix."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from harness.engine.stored import head_bytes
from harness.report.stats.table import table
from harness.store.reader import read_results
from tests.conftest import Command
from tests.harness.compression.test_storage import storage
from tests.harness.folders import cells, records

RUN = (
    "method=[fullkv,snapkv]", "storage=[exact,kivi2,int4]", "storage.kivi2.residual=32", "budget=48",
    "selection.granularity=kv_head", "task.lengths=[300]", "task.depths=[50]", "task.max_new_tokens=6",
)  # fmt: skip
HEADS, LAYERS, DIM = 2, 8, 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storages")


@pytest.mark.slow
def test_a_run_with_storages_bills_what_is_stored_shows_it_and_is_verified(kvgauge: Command, made: Path) -> None:
    words = (*RUN, "selection.after=context", f"results_dir={made}")
    first = kvgauge(*words)
    assert first.code == 0, first.err
    found = cells(made, "needle")
    assert set(found) == {
        "fullkv-full", "fullkv+kivi2-full", "fullkv+int4-full", "snapkv-48", "snapkv+kivi2-48", "snapkv+int4-48",
    }  # fmt: skip
    by_cell = {name: records(folder)[0] for name, folder in found.items()}
    assert len({record["kept_sha256"] for record in by_cell.values()}) == 6
    assert "bits" not in by_cell["snapkv-48"]
    assert by_cell["snapkv+int4-48"]["kept"] == by_cell["snapkv-48"]["kept"] == [48] * LAYERS
    each = head_bytes(storage("int4"), 48, DIM, torch.float32)
    assert by_cell["snapkv+int4-48"]["kept_bytes"] == HEADS * LAYERS * each
    assert by_cell["snapkv+int4-48"]["bits"] == 4 + 2 * 32 / DIM
    settings = {name: json.loads((folder / "manifest.json").read_text())["settings"] for name, folder in found.items()}
    assert "storage" not in settings["snapkv-48"]
    assert settings["snapkv+kivi2-48"]["storage"] == {
        "class": "harness.compression.quantised_storage.Quantised", "keys": "channel", "bits": 2, "group": 32,
        "residual": 32,
    }  # fmt: skip
    report = made / "report/tiny/needle"
    assert (report / "by_bytes.png").stat().st_size
    text = (report / "table.md").read_text()
    assert re.search(r"\|\s+bits \|", text) and "bits: memory for a number" in text
    assert "by bytes" in (made / "report/index.html").read_text()
    raw = table(read_results(made).grids[0].result).set_index("method")
    assert raw["bits"].isna()["snapkv"] and raw["kept_bytes"]["snapkv"] == HEADS * LAYERS * 48 * 2 * DIM * 4
    assert raw["difference"]["fullkv"] == 0
    checked = kvgauge("verify", str(made), "--sample", "1")
    assert checked.code == 0, checked.out + checked.err


@pytest.mark.slow
def test_the_same_run_computes_nothing_and_a_changed_storage_of_that_name_is_refused(
    kvgauge: Command, made: Path
) -> None:
    words = (*RUN, "selection.after=context", f"results_dir={made}")
    again = kvgauge(*words)
    assert again.code == 0 and "new records: 0" in again.told
    refused = kvgauge(*words, "storage.kivi2.bits=4")
    assert refused.code == 5 and refused.err.count("\n") == 1
    assert "storage.bits=2" in refused.err
    assert "give storage.kivi2.bits=[4], a list, for a cell of its own" in refused.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("storage=kivi2", "budget=32"), "storage=kivi2 packs nothing of method=snapkv budget=32 (32 entries"),
        (("storage=kivi3",), "storage=kivi3 is not there: did you mean"),
        (("storage=kivi2", "storage.kivi2=3"), "storage.kivi2=3 is no storage: set one of its knobs"),
        (("storage=kivi2", "storage.kivi2.residal=32"), "did you mean storage.kivi2.residual?"),
        (("storage.kivi2.bits=2",), "storage= does not name kivi2, so name it, too"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line_before_any_work(
    words: tuple[str, ...], said: str, kvgauge: Command, tmp_path: Path
) -> None:
    done = kvgauge("method=snapkv", "task.lengths=[300]", "task.depths=[50]", *words, f"results_dir={tmp_path}")
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())
