"""Tables of the report page: what is shown of a number, and what it is sorted by."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from harness.compression.budget import parse_budget
from harness.report.render import Section
from harness.report.stats.bootstrap import LEVEL
from harness.report.task_tables import DASH, interval, number, percent
from harness.results import Manifest, TaskResult
from harness.text import plain


@dataclass(frozen=True)
class Entry:
    """A cell of a table.

    Attributes:
        text: what is shown.
        by: what it is sorted by; None, and last, where something is missing.
        below: small print, or "".
        bar: an interval with its value, as shares of the table's width of scores: low, value, high.
    """

    text: str
    by: float | str | None
    below: str = ""
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class PageTable:
    """A table.

    Attributes:
        title: its heading, or "".
        columns: what they are called, and whether they hold numbers.
        rows: of ``Entry``.
        sortable: False where lines belong together.
        keys: the first so many columns name a line.
        starts: lines before which a group begins.
    """

    title: str
    columns: Sequence[tuple[str, bool]]
    rows: Sequence[Sequence[Entry]]
    sortable: bool = True
    keys: int = 2
    starts: frozenset[int] = frozenset()


def summary_table(result: TaskResult, raw: pd.DataFrame) -> PageTable:
    """A task's cells.

    Args:
        result: the grid.
        raw: its ``aggregate.table``.
    """
    columns: dict[str, list[Entry]] = {"method": _texts(raw["method"]), "budget": _budgets(raw["budget"])}
    if result.metrics:
        columns[f"{plain(result.metrics[0].title)} (0-100)"] = _scores(raw)
        if "percent_of_full" in raw:
            triples = zip(raw["difference"], raw["difference_low"], raw["difference_high"], strict=True)
            columns["to the full cache"] = [_entry(d, f"{d:+.2f}", interval(low, high)) for d, low, high in triples]
            columns["% of full"] = [_entry(v, number(v, 1)) for v in raw["percent_of_full"]]
        for metric in result.metrics[1:]:
            values = raw[f"mean_{metric.name}"]
            columns[f"{plain(metric.title)} (0-{metric.maximum:g})"] = [
                _entry(v, number(v, 2 if metric.maximum > 1 else 3)) for v in values
            ]
    columns["n"] = _counts(raw)
    columns["errors"] = [_entry(v, str(v)) for v in raw["errors"]]
    kept = zip(raw["kept_mean"], raw["kept_min"], raw["kept_max"], strict=True)
    columns["entries kept"] = [
        _entry(mean, number(mean, 0), "" if pd.isna(least) or least == most else f"{least} to {most}") for mean, least, most in kept
    ]
    columns["entries %"] = [_entry(v, percent(v)) for v in raw["retention"]]
    columns["bytes %"] = [_entry(v, percent(v)) for v in raw["retention_bytes"]]
    columns["prompt tokens"] = [_entry(v, number(v, 0)) for v in raw["prompt_tokens_mean"]]
    if raw["alias_of"].notna().any():
        columns["same as"] = _texts(raw["alias_of"].fillna(""))
    return _table("", columns, {"method", "budget", "same as"})


def suite_scores(raw: pd.DataFrame, kind: str, title: str) -> PageTable:
    """Scores of a suite, cells down, tasks or averages across.

    Args:
        raw: ``suite_report.suite_table``.
        kind: ``task`` or ``average``.
        title: the table's.
    """
    part = raw[raw["kind"] == kind]
    names = list(dict.fromkeys(part["column"]))
    cells = part.drop_duplicates(["method", "budget"])
    columns: dict[str, list[Entry]] = {"method": _texts(cells["method"]), "budget": _budgets(cells["budget"])}
    for name in names:
        columns[plain(str(name))] = _scores(part[part["column"] == name])
    for name, shown in (("retention", "entries %"), ("retention_bytes", "bytes %")):
        values = part[part["column"] == names[0]][name] if kind == "average" else []
        if len(values):
            columns[shown] = [_entry(v, percent(v)) for v in values]
    return _table(title, columns, {"method", "budget"})


def sheet_table(section: Section) -> PageTable:
    """A section of a sheet, as it is written elsewhere."""
    keys = section.keys
    columns = [(str(name), place >= keys) for place, name in enumerate(section.shown.columns)]
    rows = [
        [Entry(str(text), _leading_number(str(text)) if place >= keys else str(text)) for place, text in enumerate(row)]
        for row in section.shown.itertuples(index=False)
    ]
    return PageTable(plain(section.title), columns, rows, sortable=not section.starts, keys=keys, starts=section.starts)


def origins(manifests: Iterable[Manifest]) -> PageTable:
    """Where each cell's numbers come from: knobs, versions, device, commit and command of the run that began it."""
    columns: dict[str, list[Entry]] = {}
    for manifest in manifests:
        knobs = {name: value for name, value in manifest.settings.get("method", {}).items() if name != "class"}
        found: Mapping[str, object] = {
            "method": manifest.cell.label,
            "budget": manifest.cell.budget,
            "knobs": ", ".join(f"{name}={value}" for name, value in knobs.items()) or DASH,
            "created": manifest.provenance.get("created") or DASH,
            "commit": _commit(manifest.provenance),
            "device": manifest.provenance.get("device") or DASH,
            "torch": manifest.provenance.get("packages", {}).get("torch") or DASH,
            "transformers": manifest.provenance.get("packages", {}).get("transformers") or DASH,
            "command": manifest.provenance.get("command") or DASH,
        }
        for name, value in found.items():
            columns.setdefault(name, []).append(Entry(plain(str(value)), plain(str(value))))
    return _table("", columns, set(columns))


def _table(title: str, columns: Mapping[str, Sequence[Entry]], texts: set[str]) -> PageTable:
    return PageTable(title, [(name, name not in texts) for name in columns], list(zip(*columns.values(), strict=True)))


def _scores(raw: pd.DataFrame) -> list[Entry]:
    ends = [v for name in ("score", "score_low", "score_high") for v in raw[name] if math.isfinite(v)]
    low_end, room = min(ends, default=0.0), max(ends, default=0.0) - min(ends, default=0.0)

    def share(value: float) -> float:
        return round(100 * (value - low_end) / room, 1)

    entries = []
    for value, low, high in zip(raw["score"], raw["score_low"], raw["score_high"], strict=True):
        known = math.isfinite(low)
        bar = (share(low), share(value), share(high)) if known and room > 0 else None
        entries.append(_entry(value, number(value, 2), interval(low, high) if known else "", bar))
    return entries


def _counts(raw: pd.DataFrame) -> list[Entry]:
    return [_entry(n, str(n), "" if n == of else f"of {of}") for n, of in zip(raw["n"], raw["expected"], strict=True)]


def _texts(values: Iterable[str]) -> list[Entry]:
    return [Entry(plain(str(value)), plain(str(value))) for value in values]


def _budgets(values: Iterable[str]) -> list[Entry]:
    """Entries by number, then shares, then everything."""
    entries = []
    for text in values:
        size = parse_budget(text)
        by = float(size.tokens) if size.tokens is not None else 1e9 + float(size.share) if size.share is not None else 1e10
        entries.append(Entry(text, by))
    return entries


def _entry(value: float, text: str, below: str = "", bar: tuple[float, float, float] | None = None) -> Entry:
    """A number, or a dash that is sorted last."""
    return Entry(DASH, None) if pd.isna(value) or not math.isfinite(value) else Entry(text, float(value), below, bar)


def _leading_number(text: str) -> float | str | None:
    found = re.match(r"[+-]?\d+(\.\d+)?", text)
    return float(found[0]) if found else None if text in (DASH, "") else text


def _commit(provenance: Mapping[str, object]) -> str:
    commit = provenance.get("commit")
    return DASH if not commit else f"{str(commit)[:10]}{' with changes' if provenance.get('dirty') else ''}"


LEGEND = f"small print: {LEVEL} % bootstrap interval"
