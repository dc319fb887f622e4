"""A prompt is rendered in one place: context, question, end of the chat turn, begun answer."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from harness.errors import ConfigError
from harness.text import shared_tokens
from tasks.prompting import chat_frame, check_chat, frame_of, line_break, rendered, without_middle
from tests.tasks.needle.test_form import chatting

__all__ = ["chatting"]  # a fixture

CONTEXT, QUESTION, PREFIX = "The harbour lies in the north.\n\n", "Where is the harbour?", "It is"


def test_without_a_chat_template_a_prompt_is_the_text_as_it_is(chatting: PreTrainedTokenizerFast) -> None:
    prompt = rendered(CONTEXT, QUESTION, PREFIX, None, chatting)
    assert (prompt.prompt, prompt.question_at) == (CONTEXT + QUESTION + PREFIX, len(CONTEXT))


def test_in_a_chat_template_the_end_of_the_turn_and_the_begun_answer_belong_to_the_question(
    chatting: PreTrainedTokenizerFast,
) -> None:
    prompt = rendered(CONTEXT, QUESTION, PREFIX, chat_frame(chatting, {}), chatting)
    message = [{"role": "user", "content": CONTEXT + QUESTION}]
    whole = chatting.apply_chat_template(message, tokenize=False, add_generation_prompt=True) + PREFIX
    ids, at = list(prompt.prompt), prompt.question_at
    assert ids == chatting.encode(whole, add_special_tokens=False)
    assert at == shared_tokens(ids, chatting.encode("<s>[user] " + CONTEXT, add_special_tokens=False))
    assert chatting.decode(ids[:at]).removeprefix("<s>").strip() == "[user] " + CONTEXT.strip()


def test_what_is_rendered_before_the_question_is_the_same_for_every_question(
    chatting: PreTrainedTokenizerFast,
) -> None:
    frame = chat_frame(chatting, {})
    one, two = (rendered(CONTEXT, question, "", frame, chatting) for question in (QUESTION, "Why?"))
    assert one.question_at == two.question_at
    assert one.prompt[: one.question_at] == two.prompt[: two.question_at]


def test_auto_takes_a_chat_template_where_there_is_one(chatting: PreTrainedTokenizerFast) -> None:
    assert frame_of("auto", chatting, {}) == frame_of(True, chatting, {}) == chat_frame(chatting, {})
    assert frame_of(False, chatting, {}) is None
    chatting.chat_template = None
    assert frame_of("auto", chatting, {}) is None
    with pytest.raises(ConfigError, match=r"task.chat=true, but the tokenizer has no chat template"):
        frame_of(True, chatting, {})


@pytest.mark.parametrize("chat", ["yes", None, 1, "true"])
def test_another_value_is_refused(chat: object) -> None:
    with pytest.raises(ConfigError, match="is neither true nor false nor auto: use one of them"):
        check_chat(chat)


def test_a_long_text_keeps_its_ends(chatting: PreTrainedTokenizerFast) -> None:
    ids = chatting.encode(CONTEXT * 9, add_special_tokens=False)
    kept = without_middle(ids, chatting, 10)
    assert kept == chatting.decode(ids[:5]) + chatting.decode(ids[-5:])


def test_a_line_break_has_a_token(chatting: PreTrainedTokenizerFast) -> None:
    assert chatting.decode([line_break(chatting)]) == "\n"
