"""What a model's own files do to answers and prompts, where a reader of the numbers must know it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

    from harness.engine.prompt import Prompt

# What changes the tokens of a greedy ``generate`` beside the model, with the value that changes nothing. Fields for
# sampling are not among them, because greedy decoding does not sample.
_CHANGES_GREEDY: Mapping[str, object] = {
    "repetition_penalty": 1,
    "encoder_repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "forced_decoder_ids": None,
    "exponential_decay_length_penalty": None,
    "min_length": 0,
    "min_new_tokens": 0,
    "stop_strings": None,
    "guidance_scale": 1,
    "watermarking_config": None,
    "num_beams": 1,
    "num_beam_groups": 1,
    "penalty_alpha": 0,
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "token_healing": None,
}
_LONGEST_VALUE = 60
_CLOCK = "strftime_now"
"""The function by which a chat template asks for today's date."""


def generation_notes(generation: GenerationConfig | None) -> list[str]:
    """What the model's own greedy ``generate`` would do to its output and kvgauge does not; empty if nothing.

    Args:
        generation: the model's generation config; None if it has none.
    """
    values: Mapping[str, Any] = {} if generation is None else generation.to_dict()
    applied = []
    for field, neutral in _CHANGES_GREEDY.items():
        if not _is_idle(value := values.get(field), neutral):
            written = str(value)
            applied.append(f"{field}={written if len(written) <= _LONGEST_VALUE else written[:_LONGEST_VALUE] + '…'}")
    if not applied:
        return []
    return [
        f"The generation config of this model has {', '.join(applied)}: its own generate applies that, and kvgauge "
        "does not, as published runs do not."
    ]


def _is_idle(value: Any, neutral: object) -> bool:
    """Whether a field of a generation config does nothing; a token's id can be 0."""
    return value is None or value is False or value == neutral or (isinstance(value, list | tuple | dict) and not value)


def prompt_notes(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, end_ids: AbstractSet[int], knobs: Iterable[str]
) -> list[str]:
    """What the tokenizer did to prompts that one would not expect of it.

    Special tokens that the text itself has written out, an end token after the prompt, two begin tokens, or none.

    Args:
        prompts: the prompts of a task, 1 or more.
        tokenizer: the model's tokenizer.
        end_ids: the model's end tokens.
        knobs: names of the task's settings, for remedies.
    """
    notes = [*_literal(prompts, tokenizer, knobs)]
    if _CLOCK in str(tokenizer.chat_template) and not all(prompt.is_text for prompt in prompts):
        notes.append(
            "The chat template of this model writes today's date; here it is the same on every day, as "
            f"task.chat_arguments.{_CLOCK} or another argument of the template says."
        )
    last = [int(prompt.ids[-1]) for prompt in prompts]
    if ended := [token for token in last if token in end_ids]:
        notes.append(
            f"{_of(len(ended), prompts)} end in the end token {_name(tokenizer, ended[0])}, which this "
            "tokenizer appends: the model may take the text for finished; correct its post-processor "
            "(tokenizer.json, add_eos_token)."
        )
    special = _special_ids(tokenizer)
    firsts = [[int(token) for token in prompt.ids[:2]] for prompt in prompts]
    if doubled := [two for two in firsts if len(two) == 2 and two[0] == two[1] and two[0] in special]:
        notes.append(
            f"{_of(len(doubled), prompts)} begin with {_name(tokenizer, doubled[0][0])} twice: once from "
            "this tokenizer and once from the text or a template, or its post-processor has it twice."
        )
    begin = tokenizer.bos_token_id
    if isinstance(begin, int) and begin not in end_ids and (bare := sum(two[0] != begin for two in firsts)):
        notes.append(
            f"{_of(bare, prompts)} begin without the begin token {_name(tokenizer, begin)}, as this "
            "tokenizer adds none; a model that was trained with it scores less."
        )
    return notes


def _literal(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, knobs: Iterable[str]) -> Iterable[str]:
    """A note on special tokens that come from the text of prompts.

    A tokenizer or a chat template puts the same special tokens into every prompt, so more of them are the text's.
    """
    special = np.array(sorted(_special_ids(tokenizer)), dtype="<i4")
    added = Counter(tokenizer.encode("a"))
    counts = [Counter(prompt.ids[np.isin(prompt.ids, special)].tolist()) for prompt in prompts]
    of_ids = [count for count, prompt in zip(counts, prompts, strict=True) if not prompt.is_text]
    common = functools.reduce(Counter.__and__, of_ids) if of_ids else Counter[int]()
    beyond = [count - (added if prompt.is_text else common) for count, prompt in zip(counts, prompts, strict=True)]
    found = sorted({token for count in beyond for token in count})
    if found:
        with_them = sum(bool(count) for count in beyond)
        names = " and ".join(_name(tokenizer, token) for token in found[:3])
        remedy = "give a task.prompt without it" if "prompt" in knobs else "look at these prompts"
        yield (
            f"{_of(with_them, prompts)} have {names} in their text, which this "
            f"tokenizer reads as special and not as text: {remedy}."
        )


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """All special tokens, also those that the tokenizer has no name such as ``bos_token`` for."""
    return {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}


def _name(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    return f"{tokenizer.convert_ids_to_tokens(token)} (id {token})"


def _of(count: int, prompts: Sequence[Prompt]) -> str:
    return "All prompts" if count == len(prompts) else f"{count} of {len(prompts)} prompts"
