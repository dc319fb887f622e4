"""The rules of IFEval, held against the verdicts of the official checkers on GPT-4's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError
from tasks.ifeval import language
from tasks.ifeval.language import check_installed, sentence_count
from tasks.ifeval.rules import RULES, follows, follows_loosely

ROOT = Path(__file__).parents[3]
PART = ROOT / "tests/golden/ifeval/verdicts_gpt4.json"
SHARED = ROOT.parent / "shared/benchmarks"
WHOLE = SHARED / "data/ifeval/verdicts_gpt4.json"
CHANCE = {1122: "#", 1129: "!"}
"""Answers whose official verdict is of a random letter, as the one asked for is none of a to z."""


def rows(golden: Path) -> list[dict[str, Any]]:
    if not golden.is_file():
        pytest.skip(f"{golden} is not here: it is golden data outside the repository")
    loaded: list[dict[str, Any]] = json.loads(golden.read_text(encoding="utf-8"))["rows"]
    return loaded


@pytest.mark.parametrize("golden", [PART, pytest.param(WHOLE, marks=pytest.mark.slow)], ids=["part", "whole"])
def test_verdicts_are_the_official_ones_but_where_these_are_chance(golden: Path) -> None:
    differing = []
    for row in rows(golden):
        asked = list(zip(row["instruction_id_list"], row["kwargs"], strict=True))
        strict = [follows(row["response"], kind, arguments) for kind, arguments in asked]
        loose = [follows_loosely(row["response"], kind, arguments) for kind, arguments in asked]
        if (strict, loose) != (row["strict"], row["loose"]):
            differing.append(row["key"])
            (letter,) = [arguments["letter"] for _, arguments in asked if "letter" in arguments]
            assert letter == CHANCE[row["key"]]
    assert differing == (list(CHANCE) if golden == WHOLE else [])


def test_part_has_every_kind() -> None:
    assert {kind for row in rows(PART) for kind in row["instruction_id_list"]} == set(RULES) and len(RULES) == 25


@pytest.mark.parametrize(
    "kind, arguments, followed, ignored",
    [
        ("keywords:letter_frequency", {"letter": "#", "let_relation": "at least", "let_frequency": 2}, "##", "#a"),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', '{"a": 1'),
        ("detectable_format:json_format", {}, "[1]", "[" * 100_000),
        ("combination:two_responses", {}, "a\n******\nb", "a\n******\n\n******\nb"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a ***\n*** b"),
        ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "A. B.", "Mr. X."),
        ("startend:quotation", {}, '"a"', '"'),
        ("punctuation:no_comma", {}, "a", "a, b"),
    ],
)
def test_edges_of_rules(kind: str, arguments: dict[str, Any], followed: str, ignored: str) -> None:
    assert follows(followed, kind, arguments) and not follows(ignored, kind, arguments)
    assert not follows(" \n", kind, arguments)


def test_a_greeting_before_the_answer_is_forgiven_loosely() -> None:
    text = "Sure, here it is:\n*hello*"
    assert not follows(text, "punctuation:no_comma", {}) and follows_loosely(text, "punctuation:no_comma", {})


def test_sentences_are_those_of_nltk_s_punkt() -> None:
    path = SHARED / "ruler/sentence_cases.json"
    if not path.is_file():
        pytest.skip("no sentence cases here")
    texts = json.loads(path.read_text(encoding="utf-8"))["texts"]
    assert [sentence_count(case["text"]) for case in texts] == [len(case["sentences"]) for case in texts]


def test_language_of_a_short_text_is_the_same_each_time() -> None:
    found = set()
    for _ in range(20):
        language.is_language.cache_clear()
        found.add(language.is_language("Der die das ok no si", "de"))
    assert len(found) == 1


def test_without_langdetect_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "find_spec", lambda name: None if name == "langdetect" else name)
    with pytest.raises(ConfigError, match=r"by langdetect, which is not installed: pip install 'kvgauge\[ifeval\]'$"):
        check_installed("ifeval")
