"""What a reader of a task's numbers must know before anything is computed: the note that manifests keep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.engine.model_spec import ModelSpec
from harness.engine.positions import beyond_positions
from harness.engine.prompt import Prompt

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def run_note(spec: ModelSpec, config: PretrainedConfig, prompts: Sequence[Prompt], new_tokens: int) -> str:
    """The notes on a model and the prompts of a task, as one text; "" if there is nothing to say.

    Args:
        spec: the model.
        config: its configuration.
        prompts: the task's prompts, 1 or more.
        new_tokens: largest number of new tokens.
    """
    notes = [spec.note] if spec.note else []
    lengths, positions = [len(prompt.ids) for prompt in prompts], getattr(config, "max_position_embeddings", None)
    if lost := sum(beyond_positions(config, tokens, new_tokens) is not None for tokens in lengths):
        notes.append(
            f"{lost} of {len(prompts)} prompts have no result: with up to {new_tokens} new tokens they do not fit into "
            f"the {positions} positions of this model, which cannot go past them."
        )
    elif positions is not None and (beyond := sum(tokens > positions for tokens in lengths)):
        notes.append(
            f"{beyond} of {len(prompts)} prompts are longer than the {positions} positions this model is made for."
        )
    return " ".join(notes)
