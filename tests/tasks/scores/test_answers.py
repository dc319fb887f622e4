"""Whether a text gives an answer: exact match, containment, choices, numbers, patterns."""

from __future__ import annotations

import pytest

from tasks.scores.answers import chosen, contains, exact_match, last_number, number, pattern

CITIES = ("Paris", "New York", "York", "Rome")


@pytest.mark.parametrize(
    ("prediction", "reference", "same"),
    [
        ("The Eiffel Tower.", "eiffel tower", True),
        (" Paris\n", "Paris", True),
        ("Paris, France", "Paris", False),
        ("", "The", False),  # nothing is left of the reference; an empty answer is not it
        ("the", "The", True),
        ("A", "A", True),
        ("B", "A", False),
        ("北京", "北京", True),
    ],
)
def test_an_exact_match_compares_words_as_squad_does(prediction: str, reference: str, same: bool) -> None:
    assert exact_match(prediction, reference) == float(same)


@pytest.mark.parametrize(
    ("prediction", "reference", "held"),
    [
        ("It is PARIS, of course", "Paris.", True),
        ("Pari", "Paris", False),
        ("a ? b", "?", True),
        ("在北京。", "北京", True),
    ],
)
def test_an_answer_is_contained_whatever_the_case_and_the_punctuation_at_its_ends(
    prediction: str, reference: str, held: bool
) -> None:
    assert contains(prediction, reference) == float(held)


@pytest.mark.parametrize(
    ("prediction", "place"),
    [
        ("B", 1),
        (" (b) New York", 1),
        ("D.", 3),
        ("**C**", 2),
        ("'C'", 2),
        ("C because it is", 2),
        ("The correct answer is (D).", 3),
        ("Answer: A", 0),
        ("The answer is **B**", 1),
        ("At first I took the answer is A, but the answer is C", 2),
        ("I'd say (D), not (A)", 3),
        ("a city: Paris", 0),
        ("It is New York.", 1),  # York is part of it
        ("It is York.", 2),
        ("Paris or Rome", None),
        ("A large city", None),
        ("The answer is a large city", None),
        ("The answer is A large city", None),
        ("E", None),
        ("", None),
    ],
)
def test_a_choice_is_taken_by_its_letter_or_by_its_text(prediction: str, place: int | None) -> None:
    assert chosen(prediction, CITIES) == place


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("3 times 4 is 12.", "12"),
        ("$1,234.50", "1234.5"),
        ("1,2,3", "3"),
        ("it is -7", "-7"),
        ("it is \u22127", "-7"),
        ("5-3", "3"),
        ("5 - 3", "3"),
        ("is .5", "0.5"),
        ("CO2", None),
        ("共有42个", "42"),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text_is_taken(text: str, last: str | None) -> None:
    assert last_number(text) == (None if last is None else type(last_number("1"))(last))  # type: ignore[misc]
    assert number(text, f"#### {last}") == float(last is not None)


def test_a_pattern_is_searched_for() -> None:
    assert pattern("Room 12b", r"(?i)room\s+\d+") == 1.0
    assert pattern("Room b", r"room\s+\d+") == 0.0
