"""Positions that a model has no more of: families whose positions are learned or tabulated cannot go past the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.engine.row_lengths import changes_angles

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def last_position(config: PretrainedConfig) -> int | None:
    """Number of positions of a model that cannot go past them; None if its positions are computed, as by a rotation.

    GPT-2, OPT, GPTBigCode, BioGPT, BERT and CTRL look positions up in a table. All other families that the engine can
    evaluate rotate queries and keys, which their configuration says as ``rope_parameters``.
    """
    if hasattr(config, "rope_parameters"):
        return None
    positions = getattr(config, "max_position_embeddings", None)
    return positions if isinstance(positions, int) else None


def beyond_positions(config: PretrainedConfig, prompt_tokens: int, new_tokens: int, question: int = 0) -> str | None:
    """Why a prompt and its answer do not fit into a model's positions; None if they do.

    Positions whose angles depend on the length of a sequence must not change while it is read; see ``row_lengths``.

    The last new token is not read, so it needs no position.

    Args:
        config: the model's configuration.
        prompt_tokens: length of the prompt.
        new_tokens: largest number of new tokens, 1 or more.
        question: number of tokens at the end of the prompt that run through the cache.
    """
    if (changed := changes_angles(config, prompt_tokens - question, question, new_tokens)) is not None:
        return changed
    positions, needed = last_position(config), prompt_tokens + new_tokens - 1
    if positions is None or needed <= positions:
        return None
    return (
        f"{prompt_tokens} tokens and up to {new_tokens} new ones need {needed} positions, and the model has "
        f"{positions}: use shorter prompts or a smaller task.max_new_tokens"
    )
