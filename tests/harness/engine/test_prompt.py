"""What a record shows of its prompt."""

from __future__ import annotations

import pytest

from harness.engine.prompt import END_CHARACTERS, encode_prompts
from harness.task import Example


class Characters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str, verbose: bool) -> list[int]:
        return [ord(character) % 100 for character in text]

    def decode(self, ids: tuple[int, ...], clean_up_tokenization_spaces: bool) -> str:
        assert not clean_up_tokenization_spaces
        return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("prompt", "ends"),
    [
        ("short", ("short",)),
        ("a" * END_CHARACTERS + "b" * END_CHARACTERS, ("a" * END_CHARACTERS + "b" * END_CHARACTERS,)),
        ("a" * END_CHARACTERS + "-" + "b" * END_CHARACTERS, ("a" * END_CHARACTERS, "b" * END_CHARACTERS)),
        ((72, 73), ("HI",)),
        ((65,) * END_CHARACTERS + (66,) * END_CHARACTERS, ("A" * END_CHARACTERS + "B" * END_CHARACTERS,)),
        ((65,) * 301 + (67,) * 5000 + (66,) * 301, ("A" * END_CHARACTERS, "B" * END_CHARACTERS)),
    ],
)
def test_both_ends_of_a_text_or_of_decoded_tokens_are_kept_and_a_short_one_whole(
    prompt: str | tuple[int, ...], ends: tuple[str, ...]
) -> None:
    (encoded,) = encode_prompts([Example("id", prompt)], Characters(), 100)  # type: ignore[arg-type]
    assert encoded.ends == ends


def test_token_ids_without_a_tokenizer_have_no_ends() -> None:
    (encoded,) = encode_prompts([Example("id", (1, 2, 3))], None, 100)
    assert encoded.ends == ()
