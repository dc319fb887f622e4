"""Every needle task can be asked as a question in the model's chat template, with or without a begun answer."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from harness.engine.prompt import encode_prompts
from harness.errors import ConfigError
from tasks.needle.task import Needle
from tests.tasks.needle.test_task import byte_level, make, toy

TEMPLATE = (
    "{{ bos_token }}{% if date %}{{ date }} {% endif %}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\n[assistant]\n' }}{% endif %}"
)
GRID = {"lengths": [500], "depths": [50]}
BEGUN = {
    "needle": "The best thing to do in San Francisco is",
    "needle_chat": "The best thing to do in San Francisco is",
    "needle_magic": "The special magic number for {key} mentioned in the provided text is",
    "needle_many": "The special magic number for {key} mentioned in the provided text is",
}


@pytest.fixture
def chatting() -> PreTrainedTokenizerFast:
    """A tokenizer with a chat template, which begins every text with <s> by itself, as Llama-3's does."""
    made: PreTrainedTokenizerFast = byte_level.__wrapped__()
    made.chat_template = TEMPLATE
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.bos_token_id)]
    )
    return made


def asked(task: Needle, tokenizer: PreTrainedTokenizerFast) -> tuple[str, list[int]]:
    """The only example's prompt, as text and as the model sees it."""
    (example,) = task.examples(tokenizer)
    (prompt,) = encode_prompts([example], tokenizer, len(tokenizer))
    ids = prompt.ids.tolist()
    return cast(str, tokenizer.decode(ids, clean_up_tokenization_spaces=False)), ids


@pytest.mark.parametrize("preset", BEGUN)
@pytest.mark.parametrize("begun", [True, False])
def test_every_needle_task_is_asked_in_the_chat_template(
    preset: str, begun: bool, chatting: PreTrainedTokenizerFast
) -> None:
    task = make(preset, **GRID, chat=True, distractors=0, **({} if begun else {"answer_prefix": ""}))
    text, ids = asked(task, chatting)
    message = text.removeprefix("<s>[user] ").partition("\n[assistant]\n")[0]
    whole = chatting.apply_chat_template(
        [{"role": "user", "content": message}], add_generation_prompt=True, tokenize=False
    )
    prefix = BEGUN[preset].replace("{key}", task._texts("500-50")["key"]) if begun else ""
    assert text == cast(str, whole) + prefix
    assert ids == chatting.encode(text, add_special_tokens=False)
    assert ids.count(chatting.bos_token_id) == 1
    assert message.splitlines()[-1].endswith("?") and "{" not in message
    assert task._texts("500-50")["needle"].strip() in message


def test_arguments_reach_the_template_and_the_settings(chatting: PreTrainedTokenizerFast) -> None:
    task = make("needle_chat", **GRID, chat_arguments={"date": "Monday"})
    assert asked(task, chatting)[0].startswith("<s>Monday [user] ")
    assert task.settings()["chat_arguments"] == {"date": "Monday"}


def test_records_show_the_ends_of_a_prompt_in_a_chat_template(chatting: PreTrainedTokenizerFast) -> None:
    examples = make("needle_chat", **GRID).examples(chatting)
    (prompt,) = encode_prompts(examples, chatting, len(chatting))
    assert prompt.ends[0].startswith("<s>[user] ") and prompt.ends[-1].endswith("\n" + BEGUN["needle"])


@pytest.mark.parametrize("preset", ["needle", "needle_magic", "needle_many", "needle_published"])
def test_the_published_form_stays_and_knows_nothing_of_the_other(preset: str) -> None:
    task, other = make(preset, **GRID), make(preset, **GRID, message="{context}", answer_prefix="So", chat_arguments={})
    assert task.settings() == other.settings()
    assert not {"chat", "chat_arguments", "message", "answer_prefix"} & task.settings().keys()
    (one,), (two,) = task.examples(toy()), other.examples(toy())
    assert one == two and isinstance(one.prompt, str)


def test_the_forms_are_different_measurements() -> None:
    published, chat = make("needle"), make("needle", chat=True)
    assert published.settings() != chat.settings() != make("needle", chat=True, answer_prefix="").settings()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chat": "yes"}, "task.chat='yes' is neither true nor false"),
        ({"chat": True, "message": "What?"}, "task.message='What?' has no {context}"),
        ({"chat": True, "message": " "}, "task.message=' ' is not a text"),
        ({"chat": True, "answer_prefix": None}, "task.answer_prefix=None is not a text"),
        ({"chat": True, "chat_arguments": [1]}, "task.chat_arguments=[1] is not a mapping"),
    ],
)
def test_a_form_that_cannot_be_used_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        make("needle", **changes).settings()
    assert words in str(told.value) and "\n" not in str(told.value)


def test_a_tokenizer_without_a_chat_template_is_refused(chatting: PreTrainedTokenizerFast) -> None:
    chatting.chat_template = None
    with pytest.raises(ConfigError, match=r"task.chat=true, but the tokenizer has no chat template"):
        make("needle_chat", **GRID).examples(chatting)


def test_auto_is_the_chat_template_where_there_is_one_and_else_the_published_form(
    chatting: PreTrainedTokenizerFast,
) -> None:
    auto, chat, published = (make("needle", **GRID, chat=value) for value in ("auto", True, False))
    assert asked(auto, chatting) == asked(chat, chatting)
    chatting.chat_template = None
    assert asked(auto, chatting) == asked(published, chatting)
    assert auto.settings()["chat"] == "auto" and {"prompt", "message"} < auto.settings().keys()


@pytest.mark.parametrize("preset", BEGUN)
@pytest.mark.parametrize("chat", [True, False])
def test_the_question_begins_where_the_haystack_ends(
    preset: str, chat: bool, chatting: PreTrainedTokenizerFast
) -> None:
    (example,) = make(preset, **GRID, chat=chat, distractors=0).examples(chatting)
    at, prompt = example.question_at, example.prompt
    assert at is not None
    if isinstance(prompt, str):
        context, question = prompt[:at], prompt[at:]
    else:
        context, question = (cast(str, chatting.decode(list(ids))) for ids in (prompt[:at], prompt[at:]))
        assert prompt[at:] and question.count("[assistant]") == 1
    assert example.passages and all(passage.strip() in context for passage in example.passages)
    assert "San Francisco is" in question or "special magic number for" in question


def test_a_question_that_is_asked_first_begins_nowhere(chatting: PreTrainedTokenizerFast) -> None:
    (example,) = make("needle_magic", **GRID, prompt="{question}\n{context}\n{question}").examples(chatting)
    assert example.question_at is None
