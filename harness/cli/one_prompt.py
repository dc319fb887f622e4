"""``kvgauge show prompt``: one example as the model reads it, text and ids, and where its question begins."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.config.build import build, build_task, composed
from harness.config.outside import folders_of_words, search_path_words, use
from harness.engine.prompt import encode_prompts
from harness.errors import ConfigError
from harness.run.checkpoint import read_checkpoint
from harness.task import Example, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAMED = 8


def print_prompt(settings: Sequence[str], wanted: str | None, console: Console) -> None:
    """Print an example's text, what is asked of it, and its token ids. No weights are loaded.

    Args:
        settings: settings as on a run's command line.
        wanted: the example's id; None for the first example.
        console: where to print.

    Raises:
        KvgaugeError: a setting, the data or the tokenizer cannot be used, or there is no such example.
    """
    use(folders_of_words(settings))
    config = composed(*search_path_words(settings))
    tasks, _ = build_task(_plain(config.task))
    checkpoint = read_checkpoint(build(config.model), any(task.needs_tokenizer for task in tasks))
    task, turns = _found(tasks, checkpoint.tokenizer, wanted)
    example = turns[-1]
    after: Literal["prompt", "context"] = "context" if turns[0].question_at else "prompt"
    prompts = encode_prompts(turns, checkpoint.tokenizer, checkpoint.config.vocab_size, after)
    ids = prompts[-1].ids.tolist()
    at = prompts[0].context_tokens if after == "context" else None
    parts = [("prompt", ids)] if at is None else [("context", ids[:at]), ("question", prompts[0].question.tolist())]
    parts += [("question, behind the model's own answer", prompt.question.tolist()) for prompt in prompts[1:]]

    def say(text: str, style: str | None = None) -> None:
        console.print(_safe(text), style=style, markup=False, soft_wrap=True)

    say(f"{task.name}, example {example.id}, for {checkpoint.spec.label}: {len(ids)} tokens")
    for name, part in parts:
        say(f"──── {name}, {len(part)} tokens", "bold")
        if checkpoint.tokenizer is not None:
            say(cast("str", checkpoint.tokenizer.decode(part, clean_up_tokenization_spaces=False)))
    say("──── ids", "bold")
    for name, part in parts:
        say(f"{name}: {' '.join(map(str, part))}")
    say("──── example", "bold")
    say(f"references: {list(example.references)}")
    for field, value in (("group", example.group), ("details", example.details)):
        if value:
            say(f"{field}: {dict(value)}")
    if at is None:
        say("It is not said where its question begins, so nothing of it can be compressed before the question.")


def _plain(node: DictConfig) -> dict[str, Any]:
    """A part of the configuration as plain values."""
    return cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True, throw_on_missing=True))


def _found(
    tasks: Sequence[Task], tokenizer: PreTrainedTokenizerBase | None, wanted: str | None
) -> tuple[Task, list[Example]]:
    """The example that is asked for, of the first task that has it, behind the turns of its conversation before it."""
    near: list[str] = []  # the ids that there are
    for task in tasks:
        examples = task.examples(tokenizer)
        turns: list[Example] = []
        for example in (examples[index] for index in range(len(examples))):  # most tasks render one when asked for it
            turns = [example] if example.follows is None else [*turns, example]
            if wanted in (None, example.id):
                return task, turns
            near.append(example.id)
    close = difflib.get_close_matches(wanted or "", near, 1) if len(near) > _NAMED else []
    shown = ", ".join(near[:_NAMED]) + (", …" if len(near) > _NAMED else "")
    raise ConfigError(
        f"example {wanted} is not there: "
        + (f"did you mean {close[0]}?" if close else f"use one of the {len(near)} ids, {shown}")
    )


def _safe(text: str) -> str:
    """A text with its line breaks, and with every other character that a terminal might act on written as an escape."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)
