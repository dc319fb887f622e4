"""InfiniteBench's prompts, byte for byte, and the number of tokens that an answer may have.

Protocol strings: ``templates.json`` beside this file, with their source and licence. ``yarn_mistral`` has the templates
of open models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import DataError
from tasks.asking import Asked
from tasks.checks import short

MAX_NEW_TOKENS: Mapping[str, int] = {
    "passkey": 6,
    "number_string": 12,
    "kv_retrieval": 50,
    "longbook_sum_eng": 1200,
    "longbook_choice_eng": 40,
    "longbook_qa_eng": 40,
    "longbook_qa_chn": 40,
    "longdialogue_qa_eng": 40,
    "math_find": 3,
    "math_calc": 30_000,
    "code_run": 5,
    "code_debug": 5,
}
"""Limits of the official code, ``src/eval_utils.py`` of the same commit."""
KINDS = ("yarn_mistral", "gpt4", "claude2")
"""Names of the official templates."""
_CONTEXT = re.compile(r"\{context\}\n*")
_ASKED_NUMBER = re.compile(r"The .+ of")
_CALL = re.compile(r"func_[0-9]+\(-?[0-9]+\)")


@cache
def templates() -> Mapping[str, Mapping[str, str]]:
    """The templates of each kind by task."""
    loaded: dict[str, dict[str, str]] = json.loads(
        (Path(__file__).parent / "templates.json").read_text(encoding="utf-8")
    )["templates"]
    return loaded


def fill(kind: str, task: str, record: Mapping[str, Any], where: str = "a record") -> Asked:
    """The prompt of a record; its context ends before what follows the text.

    Args:
        kind: one of ``KINDS``.
        task: a key of ``MAX_NEW_TOKENS``.
        record: the record.
        where: beginning of the error message.

    Raises:
        DataError: the record asks for no number or calls no function, or the template cannot be filled, which is so
            for one of ``claude2``.
    """
    template = templates()[kind][task]
    if (kind, task) == ("gpt4", "math_calc"):
        template = "{context}"  # the official code has the rest in a message before
    context = _CONTEXT.search(template)
    assert context is not None
    fields = {"context": record["context"], "input": record["input"], "question": record["input"]}
    if (kind, task) == ("claude2", "longbook_qa_eng"):
        raise DataError("the template claude2 of longbook_qa_eng cannot be filled, officially either: use another")
    if task in ("longbook_choice_eng", "code_debug"):
        fields |= dict(zip((f"OPTION_{letter}" for letter in "ABCD"), record["options"], strict=True))
    if task == "math_find":
        asked = _found(_ASKED_NUMBER, record["input"], where, "asks for no number")
        fields["prefix"] = f"What is {asked.lower()[:-3]} in the following list?"
    if task == "code_run":
        call = _found(_CALL, record["input"], where, "calls no function")
        fields |= {"func": call.partition("(")[0], "func_call": call}
    parts = (template[: context.end()], template[context.end() :])
    return Asked(*(part.format(**fields) for part in parts))


def _found(pattern: re.Pattern[str], text: str, where: str, problem: str) -> str:
    found = pattern.search(text)
    if found is None:
        raise DataError(f"{where} {problem} in input={short(text)}: use InfiniteBench's own files")
    return found[0]
