"""Rows decoded again alone: the same in every run, and told of with their margin where they differ."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.engine import engine as engine_module
from harness.engine.decode import Decoding
from harness.engine.rows import Generated
from tests.conftest import Command
from tests.harness.folders import cells, records


@pytest.mark.slow
def test_audited_rows_are_the_same_in_every_run_and_are_told_of(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path
) -> None:
    kvgauge(*grid, f"results_dir={tmp_path / 'plain'}")
    found = []
    for name in ("one", "two"):
        done = kvgauge(*grid, "engine.width=64", "engine.audit=0.4", "wide=true", f"results_dir={tmp_path / name}")
        assert done.code == 0, done.err
        found.append(
            {
                (name, r["example_id"]): r["audit"]
                for name, cell in cells(tmp_path / name).items()
                for r in records(cell)
            }
        )
    assert found[0] == found[1]
    audited = {place: audit for place, audit in found[0].items() if audit is not None}
    assert 3 <= len(audited) <= 25
    assert all(audit == {"same": True, "first_divergence": None, "margin": None} for audit in audited.values())
    assert f"audit: {len(audited)} rows were decoded again alone; 0 generated other tokens." in done.out
    assert f"{len(audited)} rows were decoded again alone" in (tmp_path / "two/report/index.html").read_text()
    for cell in cells(tmp_path / "plain").values():
        assert [{**r, "audit": None} for r in records(tmp_path / "one/tiny/tokens" / cell.name)] == records(cell)


def test_row_that_differs_when_alone_is_told_with_its_margin(
    kvgauge: Command, grid: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Decoding):
        def take(self) -> dict[int, Generated]:
            done = {number: outcome.tokens for number, outcome in super().take().items()}
            return {number: Generated((*tokens[:3], tokens[3] ^ 1, *tokens[4:])) for number, tokens in done.items()}

    monkeypatch.setattr(engine_module, "Decoding", Other)
    done = kvgauge(*grid, "method=[fullkv,snapkv]", "engine.audit=1", "wide=true", f"results_dir={tmp_path}")
    audits = [r["audit"] for cell in cells(tmp_path).values() for r in records(cell) if r["audit"] is not None]
    rows = int(re.findall(r"decoded as (\d+) rows", done.out)[0])
    assert len(audits) == rows
    assert all(audit["same"] is False and audit["first_divergence"] == 3 and audit["margin"] >= 0 for audit in audits)
    assert (
        f"audit: {rows} rows were decoded again alone; {rows} generated other tokens, where the best logit led by "
        in done.out
    )
