"""What a record shows of its prompt."""

from __future__ import annotations

import pytest

from harness.engine.prompt import END_CHARACTERS, encode_prompts
from harness.task import Example


class Characters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str, verbose: bool) -> list[int]:
        return [ord(character) % 100 for character in text]


@pytest.mark.parametrize(
    ("prompt", "ends"),
    [
        ("short", ("short",)),
        ("a" * END_CHARACTERS + "b" * END_CHARACTERS, ("a" * END_CHARACTERS + "b" * END_CHARACTERS,)),
        ("a" * END_CHARACTERS + "-" + "b" * END_CHARACTERS, ("a" * END_CHARACTERS, "b" * END_CHARACTERS)),
        ((1, 2, 3), ()),
    ],
)
def test_both_ends_of_a_text_are_kept_and_a_short_one_whole(
    prompt: str | tuple[int, ...], ends: tuple[str, ...]
) -> None:
    (encoded,) = encode_prompts([Example("id", prompt)], Characters(), 100)  # type: ignore[arg-type]
    assert encoded.ends == ends
