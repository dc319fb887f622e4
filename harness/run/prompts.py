"""Prompts written beside the records as the model read them, so that readers of results can check them."""

from __future__ import annotations

from collections.abc import Callable, Collection

from harness.run.prepare import Prepared
from harness.run.texts import prompt_text
from harness.store.prompts import PromptFile


def prompt_saver(prepared: Prepared) -> Callable[[Collection[str]], None]:
    """What writes the prompts of examples, given by their ids.

    It writes each prompt once, and nothing if that is not wanted or prompts have no text.

    Args:
        prepared: the run, with a results folder.
    """
    tokenizer = prepared.run.checkpoint.tokenizer
    if tokenizer is None or not prepared.run.save_prompts:
        return lambda _: None
    file = PromptFile(prepared.folder, prepared.worker)

    def save(names: Collection[str]) -> None:
        new = (one for one in prepared.own if one.example.id in names and one.sha256 not in file)
        file.append((one.sha256, prompt_text(tokenizer, one.ids.tolist())) for one in new)

    return save
