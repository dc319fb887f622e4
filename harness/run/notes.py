"""What a reader of a task's numbers must know before anything is computed: the note that manifests keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from harness.engine.model_notes import prompt_notes
from harness.engine.positions import beyond_positions, last_position
from harness.engine.prompt import Prompt
from harness.engine.request import contexts
from harness.run.checkpoint import Checkpoint
from harness.task import Departing, Task

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_AFTER_CONTEXT = (
    "Compressed after the context, before the question was seen (selection.after=context): budgets, kept entries and "
    "retention are of the context."
)


def run_note(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    task: Task,
    knobs: Iterable[str],
    after: Literal["prompt", "context"],
) -> str:
    """The notes on a model and the prompts of a task, as one text; "" if there is nothing to say.

    Args:
        checkpoint: the model.
        prompts: the task's prompts, 1 or more.
        task: the task.
        knobs: names of the task's settings.
        after: where entries are selected; see ``Selection``.
    """
    departures = task.departures if isinstance(task, Departing) else ""
    boundary = ""
    if after == "context":
        boundary = f"{_AFTER_CONTEXT} Questions: {len(prompts)}; contexts: {len(contexts(prompts))}."
    notes = [note for note in (boundary, checkpoint.spec.note, departures, *checkpoint.notes) if note]
    new_tokens = task.max_new_tokens
    if checkpoint.tokenizer is not None:
        notes += prompt_notes(prompts, checkpoint.tokenizer, checkpoint.end_ids, knobs)
    return " ".join([*notes, *length_notes(checkpoint.config, prompts, new_tokens)])


def length_notes(config: PretrainedConfig, prompts: Sequence[Prompt], new_tokens: int) -> list[str]:
    """What becomes of prompts that are longer than the model is made for, if there are any.

    Args:
        config: the model's configuration.
        prompts: the task's prompts, 1 or more.
        new_tokens: largest number of new tokens.
    """
    lengths = [len(prompt.ids) for prompt in prompts]
    positions = getattr(config, "max_position_embeddings", None)
    beyond = [beyond_positions(config, len(prompt.ids), new_tokens, len(prompt.question)) for prompt in prompts]
    if (lost := len(prompts) - beyond.count(None)) and last_position(config) is None:
        return [f"{lost} of {len(prompts)} prompts have no result: {next(filter(None, beyond))}."]
    if lost:
        return [
            f"{lost} of {len(prompts)} prompts have no result: with up to {new_tokens} new tokens they do not fit into "
            f"the {positions} positions of this model, which cannot go past them."
        ]
    if positions is not None and (longer := sum(tokens > positions for tokens in lengths)):
        return [f"{longer} of {len(prompts)} prompts are longer than the {positions} positions this model is made for."]
    return []
