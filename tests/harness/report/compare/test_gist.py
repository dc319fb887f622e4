"""The gist of a comparison fits the terminal and says how many, where the largest gap is, and no more."""

from __future__ import annotations

import pandas as pd

from harness.report.compare.gist import gist
from harness.report.document import Document


def document(**columns: list[object]) -> Document:
    same = {"method": ["SnapKV", "H2O", "H2O"], "budget": ["64", "64", "128"], "column": ["qasper", "qasper", "trec"]}
    return Document("ours beside theirs", "compare", [], [], {"compare": pd.DataFrame({**same, **columns})})


def test_the_gist_counts_what_is_inside_and_names_the_largest_gap() -> None:
    nan = float("nan")
    said = gist(document(difference=[0.5, -3.25, nan], theirs_is=["inside", "outside", None])).splitlines()
    assert said[0] == "ours beside theirs" and max(map(len, said)) <= 100
    assert " ".join(said[1:]) == (
        "1 of 2 published numbers lie inside our intervals; largest gap -3.25: H2O at 64 in qasper"
    )
    trial = gist(document(difference=[0.5, -3.25, nan], theirs_is=["trial: 2 of 200", "outside", None]))
    assert "0 of 1 published" in trial and "1 numbers of trials" in trial
    trials = gist(document(difference=[0.5, -3.25, nan], theirs_is=["trial: 2 of 200", None, None])).splitlines()
    assert trials[1].startswith("1 numbers of trials are not held against theirs; largest gap -3.25")
    few = gist(document(difference=[0.5, -3.25, nan], zero_is=[None, None, None])).splitlines()
    assert few[1] == "nothing has an interval, which takes 5 examples; largest gap -3.25: H2O at 64 in qasper"
    assert "3 of 3 differences have 0 inside" in gist(document(difference=[0.0] * 3, zero_is=["inside"] * 3))


def test_a_document_without_verdicts_is_its_title() -> None:
    assert gist(document(retention=[0.1, 0.2, 0.3])) == "ours beside theirs"
