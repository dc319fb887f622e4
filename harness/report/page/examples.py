"""Examples of the report page, packed.

Each task has an index of scores, and blocks of texts that are unpacked when somebody looks.

They are packed by ``harness.text.packed``: nothing that a model wrote can end the element it lies in, and thousands of
examples open at once.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from harness.report.stats.once import once
from harness.report.stats.summary import full_cache
from harness.results import Record, TaskResult
from harness.text import plain

BLOCK = 20
"""Examples whose texts are unpacked together."""
TEXTS = 100_000
"""Most texts of a task on the page, examples x cells: a browser opens them without a pause, and LongBench has fewer."""
LONGEST = 20_000
"""Characters of a text that are shown; of a longer one the first and the last half of them."""
_REFERENCE_CHARACTERS = 80


def index(result: TaskResult) -> dict[str, Any]:
    """What the list of examples shows.

    Returns:
        ``cells``, their names; ``full``, the place of the one that kept everything, or None; ``metrics``, titles and
        maxima, the headline first; ``groups``, titles; ``block``, examples per block; and ``examples``: id, values of
        the groups, first reference, and of each cell the headline as a share of its maximum, "error", or None where it
        has neither.
    """
    names, full = _examples(result), full_cache(result.cells)
    by_id = [{record.example_id: record for record in cell.records} for cell in result.cells]
    keys = list(dict.fromkeys(key for cell in result.cells for record in cell.records for key in record.group))
    rows = []
    for name in names:
        records = [cell.get(name) for cell in by_id]
        first = next(record for record in records if record is not None)
        group = [_value(first.group.get(key)) for key in keys]
        reference = plain(first.references[0][:LONGEST])[:_REFERENCE_CHARACTERS] if first.references else ""
        rows.append([plain(name), group, reference, [_share(record, result) for record in records]])
    return {
        "cells": [[plain(cell.cell.label), cell.cell.budget] for cell in result.cells],
        "full": None if full is None else result.cells.index(full),
        "metrics": [[plain(metric.title), metric.maximum, metric.name] for metric in result.metrics],
        "groups": [plain(key) for key in keys],
        "block": BLOCK,
        "examples": rows,
    }


def first_places(result: TaskResult) -> dict[tuple[Any, Any], int]:
    """By the values of the heatmap's axes, the place of the first example that has them in the index."""
    assert result.heatmap_axes is not None
    across, down = result.heatmap_axes
    shown = {name: place for place, name in enumerate(_examples(result))}
    groups = {record.example_id: record.group for cell in result.cells for record in cell.records}
    places: dict[tuple[Any, Any], int] = {}
    for name, place in shown.items():
        places.setdefault((groups[name][across], groups[name][down]), place)
    return places


def left_out(result: TaskResult) -> list[str]:
    """What the page does not show of the examples, as a note; nothing where it has them all."""
    shown, there = len(_examples(result)), len(_all_examples(result))
    return [
        (
            f"examples: the first {shown:,} of {there:,} are on this page; the records have all, and tables and charts "
            f"are "
            f"made of all."
        )
    ] * (shown < there)


def blocks(result: TaskResult, prompts: Collection[str] = ()) -> Iterator[list[dict[str, Any]]]:
    """The texts of all examples, ``BLOCK`` at a time, in the order of the index.

    Args:
        result: the task's grid.
        prompts: hashes of the prompts that lie beside the page as a whole.
    """
    names = _examples(result)
    by_id = [{record.example_id: record for record in cell.records} for cell in result.cells]
    for start in range(0, len(names), BLOCK):
        yield [_texts([cell.get(name) for cell in by_id], prompts) for name in names[start : start + BLOCK]]


def prompt_hashes(result: TaskResult) -> set[str]:
    """The hashes of the prompts of all examples that are shown."""
    shown = set(_examples(result))
    return {
        record.prompt_sha256
        for cell in result.cells
        for record in cell.records
        if record.prompt_sha256 is not None and record.example_id in shown
    }


def visible(text: str, longest: int | None = LONGEST) -> str:
    """``text`` with a picture or a code for each character that nobody would see, or that would move its surroundings.

    Args:
        text: the text.
        longest: characters; of a longer text the middle is left out. None for no limit.
    """
    if longest is not None and len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(
        c if c in "\n\t" or c.isprintable() or unicodedata.category(c) == "Zs" else _picture(c) for c in text
    )


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "\u2421"
    return f"\u27e8U+{code:04X}\u27e9"


def _examples(result: TaskResult) -> list[str]:
    texts = sum(max(1, *(len(record.samples) for record in cell.records), 0) for cell in result.cells)
    return _all_examples(result)[: max(1, TEXTS // texts)]


@once
def _all_examples(result: TaskResult) -> list[str]:
    return list(
        dict.fromkeys(
            r.example_id for cell in sorted(result.cells, key=lambda c: -len(c.records)) for r in cell.records
        )
    )


def _share(record: Record | None, result: TaskResult) -> float | str | None:
    if record is None:
        return None
    if record.error is not None:
        return "error"
    score = record.scores.get(result.metrics[0].name) if result.metrics else None
    return None if score is None else round(score / result.metrics[0].maximum, 4)


def _texts(records: Sequence[Record | None], prompts: Collection[str]) -> dict[str, Any]:
    first = next(record for record in records if record is not None)
    ends = next((record.prompt_ends for record in records if record is not None and record.prompt_ends), ())
    return {
        "references": [visible(reference) for reference in first.references],
        "ends": [visible(end) for end in ends],
        "prompt": first.prompt_sha256 if first.prompt_sha256 in prompts else None,
        "tokens": first.prompt_tokens,
        "before": first.tokens_before_truncation,
        "cells": [None if record is None else _cell(record) for record in records],
    }


def _cell(record: Record) -> dict[str, Any]:
    """What one cell made of an example; without what is missing."""
    known = {
        "text": None if record.text is None else visible(record.text),
        "ids": list(record.tokens) if record.text is None else None,
        "scores": dict(record.scores),
        "retention": record.retention,
        "alias": record.alias_of,
        "error": None if record.error is None else plain(record.error),
        "samples": [
            {
                "text": None if one.text is None else visible(one.text),
                "ids": list(one.tokens),
                "scores": dict(one.scores),
            }
            for one in record.samples
        ]
        if len(record.samples) > 1
        else None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _value(value: float | int | str | None) -> float | int | str | None:
    return plain(value) if isinstance(value, str) else value
