"""Prompts as token ids: what is refused of their file."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import DataError
from tasks.tokens import Tokens


def test_two_prompts_of_one_name_are_refused_and_not_silently_one(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"a": [1, 2], "b": [3], "a": [4]}')
    task = Tokens(name="tokens", prompts=str(file), max_new_tokens=4, min_new_tokens=0, stop=[])
    with pytest.raises(DataError, match="has 2 prompts of the name 'a': give each a name of its own") as caught:
        task.examples(None)
    assert "\n" not in str(caught.value)
    file.write_text('{"a": [1, 2], "b": [3]}')
    assert [(example.id, example.prompt) for example in task.examples(None)] == [("a", (1, 2)), ("b", (3,))]
