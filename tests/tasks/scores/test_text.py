"""Scores of texts: code as ``fuzzywuzzy`` measures it, words of English and Chinese, classes, counts and paragraphs."""

from __future__ import annotations

import builtins
import difflib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ConfigError, DataError
from tasks.scores import text
from tasks.scores.rouge_l import OFFICIAL_CALLS, rouge_l
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
from tests.tasks.scores.test_rouge_l import original

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fuzzywuzzy import fuzz
    from fuzzywuzzy.StringMatcher import StringMatcher


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
