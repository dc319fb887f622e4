"""The steps that try the whole command on a card, on a CPU."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What ``card_steps.py`` defines."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    yield runpy.run_path(str(ROOT / "benchmarks/card_steps.py"))
    sys.modules.pop("card_steps", None)


def record(kept: str, tokens: list[int], tied: int = 0) -> dict[str, Any]:
    return {"kept_sha256": kept, "tokens": tokens, "tied_heads": tied}


def test_kept_sets_that_differ_are_counted_with_their_ties_and_tokens_where_sets_are_equal(
    steps: dict[str, Any],
) -> None:
    keys = [("needle", method, "64", str(number)) for method in ("h2o", "snapkv") for number in range(2)]
    one = dict(zip(keys, [record("a", [1]), record("b", [2]), record("c", [3]), record("d", [4])], strict=True))
    other = dict(zip(keys, [record("a", [1]), record("x", [2], 3), record("c", [9]), record("y", [4])], strict=True))
    assert steps["compared"](one, other) == (
        "kept sets equal in 2 of 4 (h2o-64, snapkv-64; 1 with ties), tokens in 1 of those 2"
    )
    with pytest.raises(steps["Failed"], match="4 and 3 records, of which 3 are of the same"):
        steps["compared"](one, dict(list(other.items())[:3]))


def test_a_model_in_pieces_is_joined_in_their_order(steps: dict[str, Any], tmp_path: Path) -> None:
    pieces = [tmp_path / name for name in ("b", "a")]
    for piece in pieces:
        piece.write_bytes(piece.name.encode() * 3)
    joined = runpy.run_path(str(ROOT / "benchmarks/card.py"))["joined"]
    assert joined(pieces, tmp_path).read_bytes() == b"bbbaaa" and joined(pieces, tmp_path).suffix == ".gguf"
    assert joined(pieces[:1], tmp_path) == pieces[0]


@pytest.mark.slow
def test_a_step_that_fails_is_told_and_does_not_end_the_others(
    steps: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ("report", "longbench", "generate")
    words = ["card.py", "--quick", "--steps", *chosen, "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match="1"):
        runpy.run_path(str(ROOT / "benchmarks/card.py"), run_name="__main__")
    rows = json.loads((tmp_path / "card.json").read_text())["table"]
    assert [(row["step"], row["state"]) for row in rows] == list(zip(chosen, ("FAILED", "ok", "ok"), strict=True))
    assert rows[0]["found"] == "no html, csv, png among the results"
    assert rows[2]["found"].startswith("3 of 3 answers of 32 tokens equal")
    assert capsys.readouterr().out.startswith(
        "report: FAILED: no html, csv, png among the results (0 s)\nlongbench: ok:"
    )
