"""LongBench v2's prompts, byte for byte.

Protocol strings: ``templates.json`` beside this file, with their sources and licences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tasks.asking import Asked

KINDS = ("0shot", "0shot_cot", "0shot_no_context")
"""The templates that ask once and need the record alone."""
_END = "</text>\n\n"
"""The end of the context in a template."""


@cache
def templates() -> Mapping[str, str]:
    """The templates of LongBench v2, and that of kvpress."""
    text = (Path(__file__).parent / "templates.json").read_text(encoding="utf-8")
    loaded: dict[str, str] = json.loads(text)["templates"]
    return loaded


def fill(kind: str, record: Mapping[str, str], reasoning: str = "") -> Asked:
    """The prompt of a record.

    The official code replaces one mark after the other, so that one inside the text, such as ``$Q$``, is replaced, too.

    Args:
        kind: a key of ``templates``.
        record: the record; its texts are stripped, but by kvpress.
        reasoning: the model's own, for ``0shot_cot_ans``.
    """
    template = templates()[kind]
    head, end, tail = template.rpartition(_END)
    parts = [head + end, tail]
    marks = {"$DOC$": record["context"], "$Q$": record["question"]}
    marks |= {f"$C_{letter}$": record[f"choice_{letter}"] for letter in "ABCD"} | {"$COT$": reasoning}
    for mark, value in marks.items():
        written = value if kind == "kvpress" else value.strip()
        if kind == "0shot_cot_ans" and mark == "$DOC$":
            continue  # "The text is too long and omitted here."
        parts = [part.replace(mark, written) for part in parts]
    return Asked(*parts)
