"""SCBench's prompts, byte for byte, in its ways to ask several questions on one context.

Protocol strings: ``templates.json`` beside this file, with their source and licence. In "The the correct answer is" the
slip is the benchmark's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import DataError
from tasks.checks import short
from tasks.prompting import Frame

MODES = ("scdq", "multi_turn", "own_answers")
"""``scdq``, same context, different queries: each question alone on the context. ``multi_turn``: each question after
those before it and their reference answers. ``own_answers``: after those before it and the model's own answers."""
MAX_NEW_TOKENS: Mapping[str, int] = {
    "scbench_kv": 150,
    "scbench_prefix_suffix": 150,
    "scbench_vt": 30,
    "scbench_qa_eng": 40,
    "scbench_qa_chn": 40,
    "scbench_choice_eng": 40,
    "scbench_many_shot": 10,
    "scbench_mf": 5,
    "scbench_summary": 200,
    "scbench_summary_with_needles": 800,
}
"""Limits of the official code; ``scbench_summary_with_needles`` has 15 for its needles there, of which the first number
counts."""
_NUMBER = re.compile(r"The .+ is")


@cache
def templates() -> Mapping[str, Mapping[str, str]]:
    """By task: the ``first`` and the ``following`` prompt of a conversation; ``context`` and ``query`` alone."""
    text = (Path(__file__).parent / "templates.json").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, str]] = json.loads(text)["templates"]
    return loaded


def turns(mode: str, task: str, record: Mapping[str, Any], frame: Frame | None, between: str) -> list[str]:
    """The texts of a record: in ``scdq`` the context and each query, in ``multi_turn`` what each turn adds.

    Args:
        mode: one of ``MODES``.
        task: a key of ``MAX_NEW_TOKENS``.
        record: the record.
        frame: text of the chat template, or None for no chat template.
        between: what the chat template has between an answer and the next question; see
            ``tasks.conversation.between_turns``.

    Raises:
        DataError: a turn of ``scbench_mf`` asks for no number.
    """
    template, asked = templates()[task], record["multi_turns"]
    fields = [_fields(task, record, turn) for turn in asked]
    before, after = (frame.before, frame.after) if frame else ("", "")
    if mode == "scdq":
        # The official code puts the whole first input where the asked number should stand.
        first = {**fields[0], "prefix": asked[0]["input"]}
        queries = [template["query"].format(**one) + after for one in fields]
        return [before + template["context"].format(**first), *queries]
    first_turn = before + template["first"].format(**fields[0]) + after
    following = []
    for one, previous in zip(fields[1:], asked, strict=False):
        # In a chat the official code asks each time for the number of the last turn.
        query = template["query"].format(**(one if frame is None else {**one, "prefix": fields[-1]["prefix"]}))
        if mode == "own_answers":
            following.append(before + query + after)
        elif frame is None:
            following.append(template["following"].format(**one, pre_ans=previous["answer"]))
        else:
            following.append(f"{previous['answer']}{between}{query}{after}")
    return [first_turn, *following]


def _fields(task: str, record: Mapping[str, Any], turn: Mapping[str, Any]) -> dict[str, str]:
    fields = {"context": record["context"], "input": turn["input"], "question": turn["input"], "prefix": ""}
    if task == "scbench_choice_eng":
        fields |= dict(zip((f"OPTION_{letter}" for letter in "ABCD"), turn["options"], strict=True))
    if task == "scbench_mf":
        found = _NUMBER.search(turn["input"])
        if found is None:
            raise DataError(f"a turn of scbench_mf asks for no number in input={short(turn['input'])}: use SCBench's")
        fields["prefix"] = f"What is {found[0].lower()[:-3]}?"
    return fields
