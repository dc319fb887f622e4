"""The loader of the papers' golden data draws every input as the references got it."""

from __future__ import annotations

import json

import pytest

from tests.methods.golden.papers import ROOTS, cases

FILES = {which: sorted(path.stem for path in root.glob("*.json")) for which, root in ROOTS.items()}


def drawn_inputs(which: str, file: str) -> int:
    """Draw all inputs of a file; the number of them."""
    count = 0
    for case in cases(which, file):
        for name, recipe in case.data["inputs"].items():
            if "seed" in recipe:
                case.input(name)
                count += 1
    return count


@pytest.mark.parametrize("file", FILES["part"])
def test_inputs_are_drawn_as_the_references_got_them(file: str) -> None:
    assert drawn_inputs("part", file) or file == "duoattention"


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES["whole"] or [pytest.param("", marks=pytest.mark.skip(reason="no whole data"))])
def test_all_inputs_are_drawn_as_the_references_got_them(file: str) -> None:
    assert drawn_inputs("whole", file) or file == "duoattention"


@pytest.mark.parametrize("file", FILES["part"])
def test_the_part_has_the_form_of_the_whole(file: str) -> None:
    index = json.loads((ROOTS["part"] / f"{file}.json").read_text())
    assert set(index) - {"score_sets"} == {"method", "n_cases", "npz", "cases"}
    assert index["n_cases"] == len(index["cases"])
