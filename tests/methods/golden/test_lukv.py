"""LU-KV keeps what kvpress keeps."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from harness.compression.budget import Budget
from harness.compression.grid import Plan, Variant
from harness.compression.method import Method
from harness.results import Cell
from methods import lukv
from methods.expected_attention import ExpectedAttention
from methods.lukv import LUKV, Protected
from methods.snapkv_kvpress import SnapKVKvpress
from tests.methods.golden import kvpress
from tests.methods.golden.papers import wrong_formulas
from tests.methods.golden.wrong import Wrong

LEVELS = (0.25, 0.5, 0.75, 0.9)


def method_of(case: kvpress.Case, which: str, folder: Path) -> LUKV:
    """The wrapper of a case, with curves that have the recorded rows, and ones in all others."""
    rows = kvpress.arrays(which, "given.npz")[f"lukv_rows_{case.model}"]
    curves = np.ones((99, *rows.shape[1:]))
    for level, row in zip(LEVELS, rows, strict=True):
        curves[round(100 * level) - 1] = row
    np.save(folder / f"{case.model}.npy", curves)
    settings = case.settings["base"]
    base: Method = (
        SnapKVKvpress("snapkv_kvpress", settings["window_size"], settings["kernel_size"], "avgpool")
        if settings["press"] == "SnapKVPress"
        else ExpectedAttention("expected_attention", 4, 512, True, True, settings["epsilon"])
    )
    return LUKV("lukv", base, str(folder / f"{case.model}.npy"), case.settings["sink"], case.settings["window"])


def plan_of(case: kvpress.Case, which: str, folder: Path) -> Plan:
    share = 1 - Fraction(str(case.level))
    variant = Variant(Cell("lukv", "share"), method_of(case, which, folder), Budget("share", share=share))
    return variant.plan(kvpress.shape_of(case.model, case.tokens))


def only_another_part_of_the_window(case: kvpress.Case, bits: kvpress.Bits) -> bool:
    """Whether heads differ in which tokens of SnapKV's window they keep, and only where it does not fit.

    These tokens have equal scores in kvpress, and LU-KV takes the oldest of them; here the newest come first.
    """
    window = case.settings["base"].get("window_size", 0)
    room = case.settings["sink"] + window
    differs = bits != case.kept
    heads = differs.any(-1)
    counts = bits.sum(-1)
    return bool(
        (counts == case.kept.sum(-1)).all()
        and not differs[..., : case.tokens - window].any()
        and (counts[heads] < room).all()
    )


def unequal(which: str, variant: str, folder: Path) -> dict[str, str]:
    verdicts = {}
    for case in kvpress.cases(which, variant):
        (bits,) = kvpress.kept([plan_of(case, which, folder)], case.model, case.tokens)
        said = kvpress.verdict(case, bits)
        verdicts[case.id] = "equal" if only_another_part_of_the_window(case, bits) else said
    return {id: said for id, said in verdicts.items() if said not in ("equal", "tie")}


@kvpress.over("lukv_ea", "lukv_snapkv8")
def test_entries_equal_kvpress(which: str, variant: str, tmp_path: Path) -> None:
    assert unequal(which, variant, tmp_path) == {}


# --- formulas that are wrong on purpose

WRONG = {
    "numbers cut down": Wrong(LUKV, "whole_numbers", "round(float(kept.sum()))", "int(kept.sum())"),
    "remainders to the first heads": Wrong(LUKV, "whole_numbers", "-(kept - numbers)", "kept * 0"),
    "the next row": Wrong(lukv.Curves, "counts", "PERCENTS) - 1", "PERCENTS) - 2"),
    "no sinks": Wrong(Protected, "rescore", "(position < self.sinks) | ", ""),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    WRONG[wrong].put(monkeypatch)
    assert unequal("whole", "lukv_snapkv8", tmp_path) or unequal("whole", "lukv_ea", tmp_path)
