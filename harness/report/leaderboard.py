"""The leaderboard of a model: its methods ranked over all tasks of a results folder, at equal retention.

leaderboard.md, leaderboard.csv, leaderboard.tex, and leaderboard.png, the score over retention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from harness.compression.budget import parse_budget
from harness.errors import ConfigError, StoreError
from harness.report.document import Column, Document, Table, TableCell, number_cell, texts
from harness.report.format import DASH, interval, number, signed
from harness.report.leaderboard_notes import board_notes, cost_notes, task_warnings
from harness.report.method_costs import MethodCosts
from harness.report.render import write
from harness.report.stats.bootstrap import FEWEST, LEVEL
from harness.report.stats.curves import Curve, Curves
from harness.report.stats.means import MISSING
from harness.report.stats.ranking import Ranking, rank
from harness.report.stats.summary import full_cache
from harness.results import SuiteResult, TaskResult
from harness.store.reader import check_boundaries
from harness.text import plain

_NOTHING = {f"{what}{end}": MISSING for what in ("score", "difference", "gain") for end in ("", "_low", "_high")}


@dataclass(frozen=True)
class Board:
    """A leaderboard.

    Attributes:
        document: its tables and notes; the data ``leaderboard`` are the numbers.
        ranking: what they are made of.
        full: the name of the method that keeps everything.
    """

    document: Document
    ranking: Ranking
    full: str


def parse_retentions(text: str) -> list[float]:
    """Retentions as they are written on the command line: ``10%,25%,50%``.

    Raises:
        ConfigError: one of them is no share of the prompt below 100 %.
    """
    shares = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        share = parse_budget(word).share
        if share is None or share >= 1:
            raise ConfigError(f"--at {word} is no share of the prompt below 100 %: give some, such as --at 10%,25%")
        shares.append(float(share))
    if not shares:
        raise ConfigError(f"--at {text!r} names no retention: give some, such as --at 10%,25%")
    return sorted(set(shares))


def shared_retentions(results: Sequence[TaskResult]) -> list[float]:
    """The shares of the prompt that are budgets of every task.

    Raises:
        StoreError: there is none.
    """
    of_tasks = [
        {share for cell in result.cells if (share := parse_budget(cell.cell.budget).share) and share < 1}
        for result in results
    ]
    shared = set.intersection(*of_tasks)
    if not shared:
        raise StoreError(
            "no share of the prompt is a budget of every task, so nothing says where methods are to be compared: "
            "name retentions, --at 10%,25%"
        )
    return sorted(map(float, shared))


def groups(
    results: Sequence[TaskResult], suites: Sequence[SuiteResult]
) -> tuple[Mapping[str, Sequence[TaskResult]], list[str]]:
    """The tasks of one model that methods can be ranked by: a suite's count once together, any other counts once.

    Returns:
        The tasks by the name under which they count, and a note on those of a suite that have fewer examples than an
        interval needs where others have enough: they would take the interval of all.

    Raises:
        StoreError: no task has scores and a cell that kept everything, or not all tasks have one boundary.
    """
    check_boundaries(results)
    suite_of = {task.task: suite.suite for suite in suites for task in suite.tasks}
    named: dict[str, list[TaskResult]] = {}
    few: list[str] = []
    for result in results:
        if result.metrics and full_cache(result.cells) is not None:
            named.setdefault(suite_of.get(result.task, result.task), []).append(result)
    for name, members in named.items():
        counts = {result.task: len(full.done) for result in members if (full := full_cache(result.cells))}
        if max(counts.values()) >= FEWEST:
            few += [f"{plain(task)} ({count})" for task, count in counts.items() if count < FEWEST]
            named[name] = [result for result in members if counts[result.task] >= FEWEST]
    if not named:
        raise StoreError(
            f"no task of {results[0].model} has scores and a cell that kept everything, which methods are held "
            "against: add method=fullkv to its grids"
        )
    return named, [f"Left out, with fewer than the {FEWEST} examples of an interval: {', '.join(few)}."] * bool(few)


def leaderboard(
    model: str,
    named: Mapping[str, Sequence[TaskResult]],
    retentions: Sequence[float],
    against: str = "",
    costs: MethodCosts | None = None,
    notes: Sequence[str] = (),
) -> Board:
    """All there is to read about the ranking of a model's methods.

    Args:
        model: the model's name.
        named: from ``groups``.
        retentions: shares of the full cache, above 0 and below 1.
        against: a method that the others are held against, besides the full cache; a note says so where it is not
            there. "" for none.
        costs: what each method adds to a prefill, if it was measured.
        notes: what else stands under the tables.
    """
    ranking = rank(named, retentions, against)
    shown = [_table("", ranking, "", retentions, costs)]
    if len(named) > 1:
        shown += [_table(plain(name), ranking, name, retentions) for name in named]
    full = full_cache(next(iter(named.values()))[0].cells)
    assert full is not None
    missing = [f"No method {plain(against)} is here to hold the others against."] * (against != ranking.against)
    document = Document(
        f"Leaderboard of {model}",
        "leaderboard",
        shown,
        [*board_notes(ranking, named), *missing, *cost_notes(ranking, costs), *notes, *task_warnings(named)],
        {"leaderboard": ranking.scores},
    )
    return Board(document, ranking, full.cell.label)


def write_leaderboard(board: Board, folder: Path) -> list[Path]:
    """Write the files but for the page; the same board gives the same bytes.

    Returns:
        The files written.
    """
    from harness.report.plots import curves  # matplotlib takes its time, and a terminal does not need it

    files = write(board.document, folder)
    if board.ranking.scores["score"].notna().any():
        files.append(folder / "leaderboard.png")
        curves(board_curves(board), board.document.title, "mean score over tasks (0-100)", files[-1])
    return files


def board_curves(board: Board) -> Curves:
    """The mean score over all tasks by retention, one curve per method from the best, and the full cache as a line."""
    raw = board.ranking.scores
    raw = raw[raw["group"] == ""]
    lines = [Curve(board.full, [None], *([value] for value in board.ranking.full[""]))]
    for method in board.ranking.methods:
        part = raw[raw["method"] == method]
        lines.append(
            Curve(
                method,
                [100 * share for share in part["retention"]],
                list(part["score"]),
                list(part["score_low"]),
                list(part["score_high"]),
            )
        )
    return Curves("retention", "KV entries kept, % of the prompt", lines)


def _table(
    title: str, ranking: Ranking, group: str, retentions: Sequence[float], costs: MethodCosts | None = None
) -> Table:
    """Methods from the best to the worst; across the retentions, the score and its differences to others."""
    raw = ranking.scores[ranking.scores["group"] == group]
    lines = cast("list[dict[str, Any]]", raw.to_dict("records"))
    by_place = {(row["method"], row["retention"]): row for row in lines}
    places = [
        TableCell(str(place), float(place)) if method in ranking.means else TableCell(DASH)
        for place, method in enumerate(ranking.methods, 1)
    ]
    columns = [Column("#", places), texts("method", ranking.methods)]
    means = [ranking.overall.get(method, _NOTHING) for method in ranking.methods]
    held = [
        ("difference", "to the full cache"),
        *([("gain", f"to {plain(ranking.against)}")] if ranking.against else []),
    ]
    if not group:
        columns += [_scores("mean", means), *(_differences(means, what, to, to) for what, to in held)]
    for retention in retentions:
        rows = [by_place[method, retention] for method in ranking.methods]
        at = f"at {100 * retention:g} %"
        columns.append(_scores(at, rows))
        columns += [_differences(rows, what, f"{to} {at}", to, extra=not group) for what, to in held]
    if costs and not group:
        columns.append(_cost(ranking, costs))
    counts = [by_place[method, retentions[0]]["n"] for method in ranking.methods]
    return Table(title, [*columns, Column("n", [TableCell(str(n), float(n)) for n in counts], spare=3)], 2)


def _scores(header: str, rows: Sequence[Mapping[str, Any]]) -> Column:
    """Scores; the page has their intervals in small print."""
    return Column(
        header,
        [
            number_cell(row["score"], number(row["score"], 2), small=interval(row["score_low"], row["score_high"]))
            for row in rows
        ],
    )


def _differences(
    rows: Sequence[Mapping[str, Any]], what: str, header: str, page_header: str, extra: bool = False
) -> Column:
    """Paired differences with their intervals."""
    cells = [
        number_cell(
            row[what],
            f"{signed(row[what])} ({interval(row[f'{what}_low'], row[f'{what}_high'])})",
            large=signed(row[what]),
            small=interval(row[f"{what}_low"], row[f"{what}_high"]),
        )
        for row in rows
    ]
    brief = header if what == "gain" else ""  # a terminal has room for the intervals of one of them
    spare = 1 if brief else 2
    return Column(f"{header} ({LEVEL} % interval)", cells, True, spare, page_header, extra, brief)


def _cost(ranking: Ranking, costs: MethodCosts) -> Column:
    """What each method adds to a prefill, with the least and the most over rounds."""
    shares = [costs.overhead.get(method, (MISSING,) * 3) for method in ranking.methods]
    written = [
        [f"{round(100 * share):+d}" for share in three] if three[0] == three[0] else [DASH] * 3 for three in shares
    ]
    cells = [
        number_cell(100 * value, f"{middle} ({low} to {high})", large=middle, small=f"{low} to {high}")
        for (value, _, _), (middle, low, high) in zip(shares, written, strict=True)
    ]
    return Column("prefill %", cells, spare=0, brief="prefill %")
