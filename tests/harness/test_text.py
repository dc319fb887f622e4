"""Tokens that a prompt and its context share."""

from __future__ import annotations

import pytest

from harness.text import check_name, label_of, shared_tokens


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


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("a/my data.jsonl", "my-data"),
        ("qa.v2.jsonl", "qa.v2"),
        ("数据.jsonl", "data"),
        ("-x-.jsonl", "x"),
        ("", "data"),
    ],
)
def test_a_file_has_a_label_that_can_name_a_folder(path: str, label: str) -> None:
    assert check_name(label_of(path), "task.name") == label


def test_a_long_name_of_a_file_is_cut() -> None:
    assert len(check_name(label_of("a" * 200 + ".jsonl"), "task.name")) == 128
