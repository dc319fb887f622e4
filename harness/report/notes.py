"""What stands under tables: facts that a reader of the numbers must know, one line each, and only where they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.report.nonsense import nonsense_notes
from harness.report.stats.bootstrap import FEWEST
from harness.report.stats.summary import alias_of, misses, off_budget, packs
from harness.results import Audit, CellResult, Manifest, TaskResult
from harness.text import plain

SAME_AS = "same as: kept exactly the entries of that cell in every example, so it was decoded once for both."
KEPT = (
    "kept: KV entries per layer and head, over layers and examples; in all: of a head, all layers together. "
    "entries %, bytes %: share of the full cache."
)
BITS = (
    "bits: memory for a number of a kept key or value, on average, scales, zero points and unpacked ones included; "
    "a dash where entries are stored as they are."
)
MISSED = "*"
"""What stands behind the share of entries of a cell that misses its budget."""


_MOST_NAMED = 4
"""Methods that a note names."""


def task_notes(result: TaskResult) -> list[str]:
    """What a reader of a task's table must know."""
    notes = [plain(result.note)] if result.note else []
    notes += nonsense_notes({result.task: result})
    notes += [KEPT, *published_notes({result.task: result}), *cell_notes(result.cells), *alias_notes(result.cells)]
    return notes + error_notes(result)


def alias_notes(cells: Iterable[CellResult]) -> list[str]:
    """What an alias is, if a cell is one."""
    return [SAME_AS] if any(alias_of(cell) for cell in cells) else []


def cell_notes(cells: Iterable[CellResult]) -> list[str]:
    """What the records of cells tell of their numbers."""
    cells = list(cells)
    notes = audit_notes(record.audit for cell in cells for record in cell.records)
    return (
        notes
        + partial_notes(cells)
        + budget_notes(cells)
        + eviction_notes(cells)
        + few_notes(len(cell.done) for cell in cells)
        + storage_notes(cells)
        + bytes_notes(r.retention_bytes for cell in cells for r in cell.done)
    )


def partial_notes(cells: Iterable[CellResult]) -> list[str]:
    """What a mean is of, if a cell has no result for an example that another one was asked for."""
    shares = [(len(cell.done), cell.expected) for cell in cells if len(cell.done) < cell.expected]
    if not shares:
        return []
    least, of = min(shares)
    return [
        f"n of N: numbers cover only the n examples that have a result ({least} of {of} in a cell), so compare "
        "differences, which are paired."
    ]


def storage_notes(cells: Iterable[CellResult]) -> list[str]:
    """What bits are, if a storage packed the entries of a cell."""
    return [BITS] if packs(cells) else []


def audit_notes(audits: Iterable[Audit | None]) -> list[str]:
    """How many rows were decoded again alone, and how many of them differ, if any was."""
    audited = [audit for audit in audits if audit is not None]
    other = [audit for audit in audited if not audit.same]
    margins = [audit.margin for audit in other if audit.margin is not None]
    led = f", where the best logit led by {max(margins):.2g} at most" if margins else ""
    return (
        [f"audit: {len(audited)} rows were decoded again alone; {len(other)} generated other tokens{led}."]
        if audited
        else []
    )


def budget_notes(cells: Iterable[CellResult]) -> list[str]:
    """Which methods miss their budgets, in one line, and by how much."""
    off: dict[str, list[float]] = {}
    for cell in cells:
        missed = off_budget(cell)
        if misses(missed):
            off.setdefault(cell.cell.label, []).append(100 * missed)
    if not off:
        return []
    named = [f"{label} {_span(shares)}" for label, shares in off.items()]
    more = [f"{len(named) - _MOST_NAMED} more"] if len(named) > _MOST_NAMED else []
    return [
        plain(
            f"{MISSED} misses its budget by more than 1 % (rounding, threshold, schedule), so compare by entries %: "
            f"{', '.join([*named[:_MOST_NAMED], *more])}."
        )
    ]


def _span(shares: Sequence[float]) -> str:
    ends = list(dict.fromkeys(f"{share:+.0f}" for share in (min(shares), max(shares))))
    return f"{' to '.join(ends)} %"


def eviction_notes(cells: Iterable[CellResult]) -> list[str]:
    """What cells held while decoding, of methods that evict then, in one line."""
    held = {cell.cell.name: [r.evicted for r in cell.done if r.evicted is not None] for cell in cells}
    named = [
        f"{name} {fmean(one.target for one in of):.0f} / {max(one.peak for one in of):.0f} / "
        f"{fmean(one.mean for one in of):.1f}"
        for name, of in held.items()
        if of
    ]
    more = [f"{len(named) - _MOST_NAMED} more"] if len(named) > _MOST_NAMED else []
    what = "entries while decoding, after eviction / most / mean"
    return [plain(f"{what}: {'; '.join([*named[:_MOST_NAMED], *more])}.")] if named else []


def few_notes(counts: Iterable[int]) -> list[str]:
    """Why an interval is missing, of numbers over so many examples each."""
    few = any(0 < count < FEWEST for count in counts)
    return [f"no interval: fewer than {FEWEST} examples say too little of others."] if few else []


def bytes_notes(shares: Iterable[float | None]) -> list[str]:
    """Why shares of the stock cache's bytes are above 1, if any is, and what to do."""
    largest = max((share for share in shares if share is not None), default=0.0)
    return (
        [
            f"bytes % above 100 (up to {100 * largest:.0f}): a cache of query heads can take more room than the stock "
            "one of fewer kv heads (GQA); selection.granularity=kv_head keeps one set for each kv head."
        ]
        if largest > 1
        else []
    )


def published_notes(tasks: Mapping[str, TaskResult]) -> list[str]:
    """A line each on all tasks with fewer examples than were published, as after ``limit=``, and with more of them.

    Args:
        tasks: by what they are called.
    """
    counts = {title: max((cell.expected for cell in task.cells), default=0) for title, task in tasks.items()}
    published = {title: task.published for title, task in tasks.items() if task.published}
    words = {title: f"{plain(title)} {counts[title]} of {number}" for title, number in published.items()}
    fewer = [words[title] for title, number in published.items() if counts[title] < number]
    more = [words[title] for title, number in published.items() if counts[title] > number]
    lines = {"fewer examples than published": fewer, "more examples than published, no numbers to compare": more}
    return [f"{line}: {', '.join(names)}." for line, names in lines.items() if names]


def error_notes(task: TaskResult, title: str = "") -> list[str]:
    """One line per cell with errors, with the first of them.

    Args:
        task: the task.
        title: what it is called beside others, or "".
    """
    where = f" in {title}" if title else ""
    notes = []
    for cell in task.cells:
        if cell.errors:
            first = next(record for record in cell.records if record.error is not None)
            notes.append(
                plain(
                    f"errors of {cell.cell.name}{where}: {cell.errors}, the first in example {first.example_id}: "
                    f"{first.error}"
                )
            )
    return notes


def method_knobs(manifest: Manifest) -> str:
    """The settings of a cell's method, as ``window=8, kernel=7``; "" where it has none or was imported.

    A wrapped method's stand behind its name: ``scorer=snapkv(window=8, kernel=7)``.
    """
    return _knobs(manifest.settings.get("method", {}))


def _knobs(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={value.get('label')}({_knobs(value)})"
        if isinstance(value, Mapping) and "class" in value
        else f"{name}={value}"
        for name, value in settings.items()
        if name not in ("class", "label")
    )
