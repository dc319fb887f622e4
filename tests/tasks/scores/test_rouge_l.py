"""ROUGE-L equals the package ``rouge`` on any text, and knows how deep it recurses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rouge import Rouge
from rouge_score import rouge_scorer

from tasks.needle.haystack import builtin_text
from tasks.scores.rouge_l import OFFICIAL_CALLS, rouge_l, rouge_score_f

ROUGE = Rouge()


def test_without_official_zero_no_text_is_too_long() -> None:
    prediction, reference = " ".join(f"w{i}" for i in range(2000)), " ".join(f"w{i}" for i in range(30))
    assert rouge_l(prediction, reference, official_zero=True) == 0
    p, r = 30 / 2000, 1.0
    assert rouge_l(prediction, reference) == 2 * (p * r / (p + r + 1e-8))
    long = " ".join(f"w{i}" for i in range(5000))
    assert rouge_l(long, long) == pytest.approx(1, abs=1e-8)


# Few words, so that they repeat and align in many ways; dots make, empty and double sentences.
WORDS = [
    "a",
    "b",
    "c",
    "the",
    "The",
    "cat",
    "cat,",
    "naïve",
    "猫",
    "。",
    "e\u0301",
    "-",
    "…",
    "0.5",
    "U.S.",
    "x\u00a0y",
    "\u2028",
    "😀",
]


GLUE = [" ", " ", " ", " ", "  ", "\n", ".", ". ", " . ", "..", ". .", "\t", ", "]


TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GLUE)), max_size=40).map(
    lambda pairs: "".join(word + glue for word, glue in pairs)
)


def original(prediction: str, reference: str) -> float | None:
    """What ``rouge`` gives; None where it raises."""
    try:
        return float(ROUGE.get_scores([prediction], [reference], avg=True)["rouge-l"]["f"])
    except ValueError:
        return None


@pytest.mark.parametrize("examples", [500, pytest.param(2000, marks=pytest.mark.slow)])
def test_rouge_l_equals_the_package_on_random_texts(examples: int) -> None:
    @given(prediction=st.one_of(TEXTS, TEXTS, TEXTS, st.text(max_size=60)), reference=TEXTS)
    @settings(max_examples=examples, deadline=None)
    def check(prediction: str, reference: str) -> None:
        assert rouge_l(prediction, reference) == (original(prediction, reference) or 0.0)

    check()


@given(
    words=st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    others=st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_rouge_l_equals_the_package_where_many_alignments_are_equally_long(words: list[str], others: list[str]) -> None:
    # Each word stands once more under a name of its own, so that the score tells which places were aligned.
    prediction = " ".join(f"{word} {word}{i % 7}" for i, word in enumerate(words))
    reference = " ".join(f"{word} {word}{i % 5}" for i, word in enumerate(others))
    assert rouge_l(prediction, reference) == original(prediction, reference)


def test_rouge_l_equals_the_package_on_prose() -> None:
    text = builtin_text()
    for start in range(0, 20_000, 2_000):
        prediction, reference = text[start : start + 700], text[start + 300 : start + 1200]
        assert rouge_l(prediction, reference) == original(prediction, reference) != 0


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("", "a", 0.0),
        (".", "a", 0.0),
        ("...", "a", 0.0),
        ("a", "", 0.0),
        (" ", "a", 0.0),
        (" ", "\n", 0.999999995),  # white space alone is one empty word on either side
        ("a b. c", "c. a b", 0.999999995),  # the order of sentences is free
        ("a a a a", "a b", 2 * (1 * 0.5 / (1 + 0.5 + 1e-8))),  # repeats count once
        ("A cat,", "a cat", 0.0),  # case and punctuation count
    ],
)
def test_rouge_l_has_the_edges_of_the_package(prediction: str, reference: str, expected: float) -> None:
    assert rouge_l(prediction, reference) == expected
    assert (original(prediction, reference) or 0.0) == expected


def recursion_depth(prediction: str, reference: str) -> int:
    """How deep the back-trace of ``rouge`` goes, counted while it runs."""
    depth = deepest = 0

    def watch(frame: Any, event: str, _: object) -> None:
        nonlocal depth, deepest
        if frame.f_code.co_name == "_recon" and event in ("call", "return"):
            depth += 1 if event == "call" else -1
            deepest = max(deepest, depth)

    sys.setprofile(watch)
    try:
        original(prediction, reference)
    finally:
        sys.setprofile(None)
    return deepest


@given(prediction=TEXTS, reference=TEXTS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_official_zero_knows_how_deep_the_package_recurses(prediction: str, reference: str) -> None:
    depth = recursion_depth(prediction, reference)
    assert rouge_l(prediction, reference, official_zero=True, calls=depth) == rouge_l(prediction, reference)
    assert rouge_l(prediction, reference, official_zero=True, calls=depth - 1) == 0


EVAL = """
import sys
from rouge import Rouge
def metric(prediction, reference, **_):
    rouge = Rouge()
    try:
        return rouge.get_scores([prediction], [reference], avg=True)["rouge-l"]["f"]
    except RecursionError:
        return None
def metric_zh(prediction, reference, **_):
    return metric(prediction, reference)
def scorer(metric, words):
    return metric(" ".join(f"w{i}" for i in range(words)), "x", all_classes=None)
if __name__ == "__main__":
    for words in map(int, sys.argv[1:]):
        print(scorer(metric, words), scorer(metric_zh, words))
"""


def test_recursion_limit_is_that_of_the_official_call(tmp_path: Path) -> None:
    (tmp_path / "eval.py").write_text(EVAL)
    # Without a common word, the back-trace takes a call per predicted word, and the first.
    counts = [str(OFFICIAL_CALLS + words) for words in (-2, -1, 0)]
    run = subprocess.run(
        [sys.executable, str(tmp_path / "eval.py"), *counts], capture_output=True, text=True, check=True
    )
    assert run.stdout.split("\n")[:3] == ["0.0 0.0", "0.0 None", "None None"]


def test_rouge_score_is_another_measure_under_its_own_name() -> None:
    prediction, reference = "the cats sat. a dog ran", "a dog ran.\nthe cat sat"
    found = rouge_score_f(prediction, reference)
    theirs = rouge_scorer.RougeScorer(["rougeL", "rougeLsum"]).score(reference, prediction)
    assert found == {name: theirs[name].fmeasure for name in ("rougeL", "rougeLsum")}
    assert len({*found.values(), rouge_l(prediction, reference)}) == 3
