"""What a solution gives as its answer."""

from __future__ import annotations

import pytest

from tasks.maths.answers import last_boxed, without_thinking

TAGS = ("<think>", "</think>")


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Nothing else.", "Nothing else."),
        ("<think>\\boxed{1}</think> \\boxed{2}", " \\boxed{2}"),
        ("\\boxed{1}</think>\\boxed{2}", "\\boxed{2}"),  # the template wrote the first tag
        ("<think>one</think><think>two</think>three", "three"),
        ("<think>It is \\boxed{1}, or", ""),
        ("<think>one</think>But <think>wait", ""),
    ],
)
def test_thinking_is_no_part_of_an_answer_and_without_its_end_there_is_none(text: str, answer: str) -> None:
    assert without_thinking(text, TAGS) == answer


def test_without_tags_everything_is_answer() -> None:
    assert without_thinking("<think>\\boxed{1}", None) == "<think>\\boxed{1}"


@pytest.mark.parametrize(
    "text, content",
    [
        ("no box", None),
        ("\\boxed{1} and \\boxed{ 2 }", "2"),
        ("\\boxed{\\frac{17}{21}}.", "\\frac{17}{21}"),
        ("\\boxed{1}, that is \\boxed{1", "1"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{1}}", "1"),
        ("\\boxed{\\boxed{3}}", "3"),
        ("\\boxed{", None),
    ],
)
def test_last_box_with_balanced_braces_is_the_answer(text: str, content: str | None) -> None:
    assert last_boxed(text) == content
