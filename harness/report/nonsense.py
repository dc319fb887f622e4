"""Notes on results that mean next to nothing: the full cache scores nothing, or answers say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harness.report.format import number
from harness.report.stats.summary import full_cache, score
from harness.results import TaskResult
from harness.text import plain

_NEXT_TO_NOTHING = 2
"""A headline score, of 100, at or below which a table shows nothing about compression."""
_MANY = 0.25
"""A share of answers that say nothing which is worth a note."""
_LOW = {
    "chat": "task.chat=true for a model that is tuned to chat, false for another",
    "question": "a task.question that asks, or one that the model completes",
    "prompt": "another task.prompt",
}
_SILENT = {
    "chat": _LOW["chat"],
    "stop_at_newline": "task.stop_at_newline=false, if answers begin with a line break",
    "min_new_tokens": "a larger task.min_new_tokens",
}


def nonsense_notes(tasks: Mapping[str, TaskResult]) -> list[str]:
    """One line on all tasks whose full cache scores next to nothing, and one on those whose answers say nothing.

    What the full cache cannot do, no compression shows. Each line names the settings of the tasks that help.

    Args:
        tasks: by what they are called.
    """
    low, silent, low_knobs, silent_knobs = [], [], set[str](), set[str]()
    for title, task in tasks.items():
        full = full_cache(task.cells)
        records = [record for cell in ([full] if full else task.cells) for record in cell.done]
        if full and task.metrics and (value := score(full, task.metrics[0])) <= _NEXT_TO_NOTHING:
            low.append(f"{number(value, 2)} in {plain(title)}")
            low_knobs.update(task.knobs)
        texts = [record.text for record in records if record.text is not None]
        if (empty := sum(not text.strip() for text in texts)) >= max(1, _MANY * len(texts)):
            silent.append(f"{empty} of {len(texts)} in {plain(title)}")
            silent_knobs.update(task.knobs)
    notes = []
    if low:
        notes.append(
            f"the full cache scores next to nothing ({', '.join(low)}), so no score here says what compression costs; "
            f"{_help(_LOW, low_knobs, 'another task or model')}."
        )
    if silent:
        notes.append(
            f"answers are empty or a line break ({', '.join(silent)}), as the model ends them at once; "
            f"{_help(_SILENT, silent_knobs, 'another task or model')}."
        )
    return notes


def _help(knobs: Mapping[str, str], known: Iterable[str], otherwise: str) -> str:
    useful = [text for knob, text in knobs.items() if knob in set(known)]
    return f"what may help: {'; '.join([*useful, otherwise])}"
