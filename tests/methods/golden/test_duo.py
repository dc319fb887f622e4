"""DuoAttention's heads equal those of its authors' code, and what they keep equals kvpress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.compression.allocation import Shape
from methods import duo
from methods.duo import Duo
from tests.methods.golden import kvpress
from tests.methods.golden.papers import Case, cases, over, unequal, wrong_formulas
from tests.methods.golden.wrong import Wrong


def written(values: Any, folder: Path, name: str) -> str:
    path = folder / f"{name}.tsv"
    np.savetxt(path, np.atleast_2d(values), delimiter="\t", fmt="%.18e")
    return str(path)


def pattern_of(case: Case) -> Any:
    inputs = case.data["inputs"]
    return inputs["pattern"]["inline"] if "pattern" in inputs else case.array("pattern").numpy()


def compare(case: Case, folder: Path) -> None:
    file = written(pattern_of(case), folder, case.id.replace("/", "-"))
    full = np.array(duo.full_heads(file, case.params["sparsity"], "duo"))
    wanted = case.expect["mask"] if "mask" in case.expect else case.array("mask").numpy()
    assert (full == np.array(wanted).astype(bool)).all()
    assert full.sum() == case.expect["full_heads"]
    assert 1 - full.mean() == pytest.approx(case.expect["true_sparsity"])


@over("duoattention", lambda case: not case.raises)
def test_heads_equal_the_references_by_sparsity(case: Case, tmp_path: Path) -> None:
    compare(case, tmp_path)


@kvpress.over("duo_4_16", "duo_16_64")
def test_entries_equal_kvpress(which: str, variant: str, tmp_path: Path) -> None:
    def method(case: kvpress.Case) -> Duo:
        streaming = kvpress.arrays(which, "given.npz")[f"duo_mask_{case.model}"]
        file = written(~streaming, tmp_path, case.model)
        return Duo("duo", file, float(streaming.mean()), case.settings["sink_size"], case.settings["recent_size"])

    assert kvpress.unequal(kvpress.cases(which, variant), method, lambda case: case.tokens) == {}


def test_query_heads_keep_what_their_kv_head_keeps(tmp_path: Path) -> None:
    method = Duo("duo", written([[1, 0], [0, 1]], tmp_path, "two"), 0.5, 1, 2)
    assert method.allocation.counts(9, Shape(9, 2, 4, 2, 4, 2), ()) == [[9, 9, 3, 3], [3, 3, 9, 9]]
    assert method.allocation.total(9, Shape(9, 2, 4, 2, 2, 2)) == 24


# --- formulas that are wrong on purpose

WRONG = {
    "no noise among equal values": Wrong(
        Duo, "full_heads", "+ np.random.RandomState(_SEED).uniform(0, _NOISE, values.shape)", ""
    ),
    "values as they are": Wrong(Duo, "full_heads", "values.clip(0, 1)", "values"),
    "the nearest value as the threshold": Wrong(
        Duo, "full_heads", "np.quantile(noisy, sparsity)", "np.quantile(noisy, sparsity, method='lower')"
    ),
    "a threshold of values": Wrong(Duo, "full_heads", "np.quantile(noisy, sparsity)", "sparsity"),
}


@pytest.mark.slow
@wrong_formulas
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_formula_is_caught(wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    WRONG[wrong].put(monkeypatch)
    assert unequal(lambda case: compare(case, tmp_path), [c for c in cases("whole", "duoattention") if not c.raises])
