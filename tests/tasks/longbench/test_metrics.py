"""Scores of LongBench: equal to the official code on golden cases, to ``rouge`` and ``fuzzywuzzy`` on random texts."""

from __future__ import annotations

import builtins
import difflib
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rouge import Rouge
from rouge_score import rouge_scorer

from harness.errors import ConfigError, DataError
from harness.report.format import number, part_score
from harness.report.stats.means import part_mean, score_mean
from tasks.longbench.metrics import (
    BUCKETS,
    FIRST_LINE_ONLY,
    METRIC_OF,
    Scoring,
    bucket,
    first_line,
    sample_score,
)
from tasks.needle.haystack import builtin_text
from tasks.scores import text
from tasks.scores.rouge_l import OFFICIAL_CALLS, rouge_l, rouge_score_f
from tasks.scores.text import (
    CODE_BACKENDS,
    CodeBackend,
    classification,
    code_similarity,
    count,
    qa_f1,
    qa_f1_zh,
    retrieval,
    retrieval_zh,
    rouge_l_zh,
    segmenter,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fuzzywuzzy import fuzz
    from fuzzywuzzy.StringMatcher import StringMatcher

ROOT = Path(__file__).parents[3]
PART = ROOT / "tests/golden/metrics"
WHOLE = ROOT.parent / "shared/golden/metrics"
_NOT_HERE = pytest.mark.skipif(not WHOLE.is_dir(), reason="no ../shared")
FOLDERS = [PART, pytest.param(WHOLE, marks=[pytest.mark.slow, _NOT_HERE])]
ROUGE = Rouge()
DIFFLIB = Scoring("difflib", official_zero=True, rouge_score=False)


def golden(folder: Path, backend: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"metrics_{backend}.json").read_text(encoding="utf-8"))
    return found


def ours(backend: CodeBackend) -> dict[str, Callable[[str, str, Sequence[str]], float]]:
    """Our scores under the official names."""
    return {
        "qa_f1_score": lambda p, r, _: qa_f1(p, r),
        "qa_f1_zh_score": lambda p, r, _: qa_f1_zh(p, r),
        "rouge_score": lambda p, r, _: rouge_l(p, r, official_zero=True),
        "rouge_zh_score": lambda p, r, _: rouge_l_zh(p, r, official_zero=True),
        "classification_score": classification,
        "count_score": lambda p, r, _: count(p, r),
        "retrieval_score": lambda p, r, _: retrieval(p, r),
        "retrieval_zh_score": lambda p, r, _: retrieval_zh(p, r),
        "code_sim_score": lambda p, r, _: code_similarity(p, r, backend),
    }


# --- golden cases


@pytest.mark.parametrize("folder", FOLDERS, ids=["part", "whole"])
@pytest.mark.parametrize(("backend", "cases"), [("difflib", 390), ("levenshtein", 48)])
def test_golden_cases_equal_the_official_scores(folder: Path, backend: CodeBackend, cases: int) -> None:
    found = golden(folder, backend)["cases"]
    assert len(found) == (390 if folder == WHOLE else cases)
    score = ours(backend)
    wrong = [
        (case["id"], value, case["score"])
        for case in found
        if not abs(
            (value := score[case["metric"]](case["prediction"], case["reference"], case["all_classes"])) - case["score"]
        )
        <= 1e-12
    ]
    assert wrong == []


def test_golden_cases_tell_the_two_measures_of_code_apart() -> None:
    scores = [{case["id"]: case["score"] for case in golden(PART, backend)["cases"]} for backend in CODE_BACKENDS]
    assert sum(scores[0][case] != score for case, score in scores[1].items()) == 7


@pytest.mark.parametrize("folder", FOLDERS, ids=["part", "whole"])
@pytest.mark.parametrize("backend", CODE_BACKENDS)
def test_dataset_scores_and_buckets_equal_the_official_ones(folder: Path, backend: CodeBackend) -> None:
    scoring = Scoring(backend, official_zero=True, rouge_score=False)
    found = golden(folder, backend)["dataset_scorers"]
    assert len(found) == 17
    for case in found:
        classes = case["all_classes"] or ()
        answers = zip(case["predictions"], case["answers"], strict=True)
        scores = [sample_score(case["dataset"], text, references, classes, scoring) for text, references in answers]
        assert float(number(score_mean(scores, 1.0), 2)) == case["scorer"], case["dataset"]
        if "scorer_e" in case:
            parts: dict[str, list[float]] = {name: [] for name in BUCKETS}
            for value, length in zip(scores, case["lengths"], strict=True):
                parts[bucket(length)].append(value)
            assert {name: float(part_score(part_mean(part, 1.0))) for name, part in parts.items()} == case[
                "scorer_e"
            ], case["dataset"]


@pytest.mark.parametrize("folder", FOLDERS, ids=["part", "whole"])
def test_official_zero_equals_what_the_recursion_of_rouge_gave(folder: Path) -> None:
    rows = json.loads((folder / "rouge_recursion.json").read_text())["rows"]
    assert len(rows) == 9
    for row in rows:
        predicted = [f"p{i}" for i in range(row["pred_words"])]
        wanted = [f"r{i}" for i in range(row["ref_words"])]
        shared = " ".join([*predicted[1:], "x"])
        assert rouge_l(shared, " ".join([*wanted[1:], "x"]), official_zero=True) == pytest.approx(
            row["one_shared_word"], abs=1e-12
        )
        assert rouge_l(shared, ". ".join([*wanted[1:], "x"]), official_zero=True) == pytest.approx(
            row["with_periods"], abs=1e-12
        )
        same = [f"w{i}" for i in range(max(row["pred_words"], row["ref_words"]))]
        prefix = rouge_l(" ".join(same[: row["pred_words"]]), " ".join(same[: row["ref_words"]]), official_zero=True)
        assert prefix == pytest.approx(row["identical_prefix"], abs=1e-12)


def test_without_official_zero_no_text_is_too_long() -> None:
    prediction, reference = " ".join(f"w{i}" for i in range(2000)), " ".join(f"w{i}" for i in range(30))
    assert rouge_l(prediction, reference, official_zero=True) == 0
    p, r = 30 / 2000, 1.0
    assert rouge_l(prediction, reference) == 2 * (p * r / (p + r + 1e-8))
    long = " ".join(f"w{i}" for i in range(5000))
    assert rouge_l(long, long) == pytest.approx(1, abs=1e-8)


# --- ROUGE-L against the original

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


@given(prediction=st.one_of(TEXTS, TEXTS, TEXTS, st.text(max_size=60)), reference=TEXTS)
@settings(max_examples=2000, deadline=None)
def test_rouge_l_equals_the_package_on_random_texts(prediction: str, reference: str) -> None:
    assert rouge_l(prediction, reference) == (original(prediction, reference) or 0.0)


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


def test_rouge_l_is_several_times_faster_than_the_package() -> None:
    text = builtin_text()
    pairs = [(text[i : i + 2000], text[i + 1000 : i + 2500]) for i in range(0, 12_000, 2_000)]

    def seconds(score: Callable[[str, str], object]) -> float:
        begin = time.process_time()
        for prediction, reference in pairs:
            score(prediction, reference)
        return time.process_time() - begin

    assert seconds(original) > 5 * min(seconds(rouge_l) for _ in range(3))


def test_rouge_score_is_another_measure_under_its_own_name() -> None:
    prediction, reference = "the cats sat. a dog ran", "a dog ran.\nthe cat sat"
    found = rouge_score_f(prediction, reference)
    theirs = rouge_scorer.RougeScorer(["rougeL", "rougeLsum"]).score(reference, prediction)
    assert found == {name: theirs[name].fmeasure for name in ("rougeL", "rougeLsum")}
    assert len({*found.values(), rouge_l(prediction, reference)}) == 3


# --- code

LINES = st.text(alphabet="ab_(). =\t`#/\n", max_size=30) | st.sampled_from(
    ["return x", "\tself.a = b(c)", "if a == b:", ""]
)


@pytest.mark.parametrize(("backend", "matcher"), [("difflib", difflib.SequenceMatcher), ("levenshtein", StringMatcher)])
@given(prediction=LINES, reference=LINES)
@settings(max_examples=300, deadline=None)
def test_code_similarity_equals_fuzzywuzzy_with_the_backend_it_names(
    backend: CodeBackend, matcher: Any, prediction: str, reference: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuzz, "SequenceMatcher", matcher)
        lines = prediction.lstrip("\n").split("\n")
        line = ([x for x in lines if not any(mark in x for mark in ("`", "#", "//"))] or [""])[0]
        assert code_similarity(prediction, reference, backend) == fuzz.ratio(line, reference) / 100


@pytest.mark.parametrize(
    ("prediction", "line"),
    [
        ("\n\nx = 1\ny", "x = 1"),
        ("# a\n// b\n```py\n  x\n", "  x"),
        ("# a\n\nx", ""),  # an empty line counts as the line
        ("# only", ""),
        ("\n  x", "  x"),
    ],
)
def test_code_is_the_first_line_without_comment_marks_and_is_never_stripped(prediction: str, line: str) -> None:
    assert code_similarity(prediction, line, "difflib") == 1.0
    assert code_similarity(prediction, line + "zz", "difflib") < 1.0


def test_installed_python_levenshtein_does_not_change_the_default() -> None:
    assert fuzz.SequenceMatcher is StringMatcher, "fuzzywuzzy has switched here, as it does"
    pair = ("assertEquals(a, b)", "self.assert(b == a)")
    assert code_similarity(*pair, "levenshtein") == fuzz.ratio(*pair) / 100
    assert (
        code_similarity(*pair, "difflib")
        == round(100 * difflib.SequenceMatcher(None, *pair).ratio()) / 100
        != fuzz.ratio(*pair) / 100
    )


def test_the_measure_is_the_same_without_python_levenshtein(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ("assertEquals(a, b)", "self.assert(b == a)")
    found = [code_similarity(*pair, backend) for backend in CODE_BACKENDS]
    monkeypatch.setitem(sys.modules, "Levenshtein", None)
    monkeypatch.setitem(sys.modules, "fuzzywuzzy.StringMatcher", None)
    text._fuzzywuzzy.cache_clear()
    assert [code_similarity(*pair, backend) for backend in CODE_BACKENDS] == found
    assert text._fuzzywuzzy("difflib") is not text._fuzzywuzzy("levenshtein") is not fuzz


def test_missing_backend_and_unknown_backend_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="use difflib or levenshtein"):
        code_similarity("a", "b", "indel")  # type: ignore[arg-type]
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("rapidfuzz"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="pip install rapidfuzz, or use difflib") as caught:
        code_similarity("a", "b", "levenshtein")
    assert "\n" not in str(caught.value)
    assert code_similarity("a", "b", "difflib") == 0.0


# --- the other scores


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("The answer, an Apple!", "apple answer", 1.0),
        ("a the an", "the", 0.0),  # nothing is left of either side
        ("yes yes no", "yes", 0.5),
        ("theatre", "atre", 0.0),
        ("don't", "dont", 1.0),
        ("“yes”", "yes", 0.0),  # only ASCII punctuation goes
    ],
)
def test_qa_f1_compares_bags_of_words(prediction: str, reference: str, expected: float) -> None:
    assert qa_f1(prediction, reference) == expected


def test_qa_f1_zh_keeps_the_one_bracket_that_the_official_list_lacks() -> None:
    assert qa_f1_zh("北京大学。", "北京大学") == 1.0
    assert qa_f1_zh("北京》", "北京") == 1.0
    assert qa_f1_zh("《北京", "北京") == pytest.approx(2 / 3)
    assert qa_f1_zh("ＡＢ", "ａｂ") == 1.0


def test_chinese_words_are_those_of_jieba_whatever_was_added_to_it() -> None:
    import jieba

    text = "他来到了网易杭研大厦，在日本京都大学深造。LongBench v1"
    expected = list(jieba.cut(text))
    assert list(segmenter().cut(text)) == expected
    jieba.add_word("了网易", freq=10**9)
    try:
        assert list(jieba.cut(text)) != expected
        assert list(segmenter().cut(text)) == expected
    finally:
        jieba.del_word("了网易")


def test_segmenter_neither_reads_nor_writes_a_shared_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jieba.cache").write_bytes(b"written by somebody else")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    segmenter.cache_clear()
    assert list(segmenter().cut("我来到北京清华大学")) == ["我", "来到", "北京", "清华大学"]
    assert [file.name for file in tmp_path.iterdir()] == ["jieba.cache"]


def test_rouge_l_zh_takes_words_and_not_characters() -> None:
    assert rouge_l_zh("我来到北京清华大学", "清华大学") == original("我 来到 北京 清华大学", "清华大学")
    assert rouge_l_zh("", "一个") == 0.0


def test_rouge_l_zh_reaches_one_call_less_deep() -> None:
    def zero(score: Callable[[str, str, bool], float], words: int) -> bool:
        return score("x." + " a" * words, "x", True) == 0

    assert [zero(rouge_l, OFFICIAL_CALLS + n) for n in (-2, -1, 0)] == [False, False, True]
    assert [zero(rouge_l_zh, OFFICIAL_CALLS + n) for n in (-2, -1, 0)] == [False, True, True]
    assert rouge_l_zh("x." + " a" * OFFICIAL_CALLS, "x") > 0


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("abc", "abc", 0.5),  # "a" is taken away, so "ab" behind it is skipped and stays
        ("ab", "ab", 1.0),
        ("abc xyz", "xyz", 0.25),
        ("ab", "abc", 0.0),
        ("", "abc", 0.0),
    ],
)
def test_classification_keeps_the_class_behind_one_taken_away(prediction: str, reference: str, expected: float) -> None:
    assert classification(prediction, reference, ["a", "ab", "abc", "xyz"]) == expected


@given(
    prediction=st.text("abc", max_size=6),
    reference=st.text("abc", min_size=1, max_size=3),
    classes=st.lists(st.text("abc", max_size=3)),
)
def test_classification_equals_removal_while_iterating(prediction: str, reference: str, classes: list[str]) -> None:
    named = list(filter(prediction.__contains__, classes))
    for label in named:
        if label != reference and label in reference:
            named.remove(label)
    assert classification(prediction, reference, classes) == (1 / len(named) if reference in named else 0)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("7", "7", 1.0),
        ("7 of 30", "7", 0.5),
        ("07", "7", 0.0),
        ("seven", "7", 0.0),
        ("７", "7", 0.0),
        ("1.7", "7", 0.5),
    ],
)
def test_count_is_the_share_of_right_numbers(prediction: str, reference: str, expected: float) -> None:
    assert count(prediction, reference) == expected
    assert retrieval(prediction, f"Paragraph {reference}") == expected
    assert retrieval_zh(prediction, f"段落{reference}") == expected


@pytest.mark.parametrize(
    ("score", "reference"), [(retrieval, "7"), (retrieval, "段落7"), (retrieval_zh, "Paragraph 7"), (retrieval, "")]
)
def test_retrieval_answer_without_a_paragraph_is_refused(score: Callable[[str, str], float], reference: str) -> None:
    with pytest.raises(DataError, match="names no paragraph: use the official data"):
        score("7", reference)


# --- datasets


def test_every_dataset_has_a_metric_that_scores_a_right_answer_best() -> None:
    assert len(METRIC_OF) == 21
    right = {"retrieval": "Paragraph 7", "retrieval_zh": "段落7", "count": "7"}
    for dataset, metric in METRIC_OF.items():
        answer = right.get(metric, "yes")
        scores = DIFFLIB.scores(dataset, answer, [answer], ["yes", "no"])
        assert list(scores) == [m.name for m in DIFFLIB.metrics(dataset)]
        assert next(iter(scores.values())) == pytest.approx(1, abs=1e-8)
        assert DIFFLIB.scores(f"{dataset}_e", answer, [answer], ["yes", "no"]) == scores


def test_only_four_datasets_score_the_first_line_and_none_is_stripped() -> None:
    assert sorted(FIRST_LINE_ONLY) == ["lsht", "samsum", "trec", "triviaqa"]
    for dataset in METRIC_OF:
        assert first_line(dataset, "\n\n a \nb") == (" a " if dataset in FIRST_LINE_ONLY else "\n\n a \nb")
    assert first_line("trec_e", "x\ny") == "x"
    assert first_line("trec", "\n\n") == ""


def test_sample_score_is_the_best_over_references() -> None:
    assert sample_score("qasper", "yes", ["no", "yes", "maybe"], (), DIFFLIB) == 1.0
    assert sample_score("qasper", "yes", [], (), DIFFLIB) == 0.0


def test_backend_stands_in_the_name_of_the_metric_and_extras_are_columns_of_their_own() -> None:
    both = [Scoring(backend, official_zero=False, rouge_score=True) for backend in CODE_BACKENDS]
    assert [s.metrics("lcc")[0].name for s in both] == ["code_similarity_difflib", "code_similarity_levenshtein"]
    names = [metric.name for metric in both[0].metrics("gov_report")]
    assert names == ["rouge_l", "rouge_score_rougeL", "rouge_score_rougeLsum"]
    assert list(both[0].scores("gov_report", "a b", ["a", "b c"], ())) == names
    assert [metric.name for metric in both[0].metrics("vcsum")] == ["rouge_l_zh"]
    assert [metric.name for metric in DIFFLIB.metrics("gov_report")] == ["rouge_l"]


def test_extras_take_the_first_line_and_the_best_reference_too() -> None:
    scoring = Scoring("difflib", official_zero=False, rouge_score=True)
    scores = scoring.scores("samsum", "\na b\nc d", ["x", "a b"], ())
    assert scores["rouge_score_rougeL"] == scores["rouge_score_rougeLsum"] == 1.0
    assert scoring.scores("samsum", "a", [], ()) == {
        "rouge_l": 0.0,
        "rouge_score_rougeL": 0.0,
        "rouge_score_rougeLsum": 0.0,
    }


def test_bucket_edges_belong_to_the_longer_bucket() -> None:
    assert [bucket(n) for n in (0, 3999, 4000, 7999, 8000)] == ["0-4k", "0-4k", "4-8k", "4-8k", "8k+"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample_score("squad", "a", ["a"], (), DIFFLIB), ConfigError, "'squad' is not a dataset"),
        (lambda: sample_score("trec", "a", ["a"], (), DIFFLIB), DataError, "without the classes"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
