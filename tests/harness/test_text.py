"""Tokens that a prompt and its context share."""

from __future__ import annotations

import pytest

from harness.text import shared_tokens


@pytest.mark.parametrize(
    ("whole", "context", "shared"),
    [
        ([1, 2, 3, 4], [1, 2], 2),
        ([1, 2, 9, 4], [1, 2, 3], 2),  # the context's last token reaches into the question
        ([1, 2], [1, 2, 3], 2),
        ([5], [1], 0),
        ([], [], 0),
    ],
)
def test_a_prompt_shares_the_tokens_of_its_context_that_the_question_does_not_change(
    whole: list[int], context: list[int], shared: int
) -> None:
    assert shared_tokens(whole, context) == shared
