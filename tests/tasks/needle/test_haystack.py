"""The built-in haystack."""

from __future__ import annotations

import hashlib
import re

import pytest

from tasks.needle.haystack import CHARACTERS, builtin_text


def test_builtin_text_is_the_same_everywhere() -> None:
    digest = hashlib.sha256(builtin_text().encode()).hexdigest()
    assert digest == "599d52baf9b1fa1e97e98df1c7eeceedf1c8e909074dbad0df21c8089e11a86a"


def test_builtin_text_has_the_promised_size_and_only_ascii_without_digits() -> None:
    text = builtin_text()
    assert CHARACTERS <= len(text) < CHARACTERS + 2000
    assert text.isascii()
    assert not re.search(r"[\d{}<>]", text)


@pytest.mark.parametrize("word", ["san francisco", "dolores", "sandwich", "sunny", "magic", "number", "best thing"])
def test_builtin_text_does_not_hold_the_words_of_any_needle(word: str) -> None:
    assert word not in builtin_text().lower()


def test_builtin_text_is_made_of_varied_sentences_that_end_in_periods() -> None:
    paragraphs = builtin_text().strip().split("\n\n")
    assert all(paragraph.endswith(".") for paragraph in paragraphs)
    assert all(sentence[:1].isupper() for paragraph in paragraphs for sentence in paragraph.split(". "))
    sentences = [sentence for paragraph in paragraphs for sentence in paragraph.split(". ")]
    assert len(set(sentences)) > 0.9 * len(sentences)
    assert len(set(re.findall(r"[a-z]+", builtin_text().lower()))) > 800


def test_builtin_text_chooses_a_and_an_by_the_next_letter() -> None:
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", builtin_text())
