"""The leaderboard of a model: its methods ranked over all tasks of a results folder, at equal retention.

leaderboard.md, leaderboard.csv, leaderboard.tex, and leaderboard.png, the score over retention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from harness.compression.budget import parse_budget
from harness.errors import ConfigError, StoreError
from harness.report.document import Column, Document, Table, TableCell, number_cell, texts
from harness.report.format import DASH, interval, number, signed
from harness.report.render import write
from harness.report.stats.bootstrap import LEVEL
from harness.report.stats.curves import Curve, Curves
from harness.report.stats.means import MISSING
from harness.report.stats.ranking import Ranking, rank
from harness.report.stats.summary import full_cache
from harness.results import SuiteResult, TaskResult
from harness.text import plain


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


def groups(results: Sequence[TaskResult], suites: Sequence[SuiteResult]) -> Mapping[str, Sequence[TaskResult]]:
    """The tasks of one model that methods can be ranked by: a suite's count once together, any other counts once.

    Raises:
        StoreError: no task has scores and a cell that kept everything.
    """
    suite_of = {task.task: suite.suite for suite in suites for task in suite.tasks}
    named: dict[str, list[TaskResult]] = {}
    for result in results:
        if result.metrics and full_cache(result.cells) is not None:
            named.setdefault(suite_of.get(result.task, result.task), []).append(result)
    if not named:
        raise StoreError(
            f"no task of {results[0].model} has scores and a cell that kept everything, which methods are held "
            "against: add method=fullkv to its grids"
        )
    return named


def leaderboard(model: str, named: Mapping[str, Sequence[TaskResult]], retentions: Sequence[float]) -> Document:
    """All there is to read about the ranking of a model's methods.

    Args:
        model: the model's name.
        named: from ``groups``.
        retentions: shares of the full cache, above 0 and below 1.
    """
    ranking = rank(named, retentions)
    shown = [_table("", ranking, "", retentions)]
    if len(named) > 1:
        shown += [_table(plain(name), ranking, name, retentions) for name in named]
    return Document(
        f"Leaderboard of {model}", "leaderboard", shown, _notes(ranking, named), {"leaderboard": ranking.scores}
    )


def write_leaderboard(document: Document, folder: Path) -> list[Path]:
    """Write the files; the same document gives the same bytes.

    Returns:
        The files written.
    """
    from harness.report.plots import curves  # matplotlib takes its time, and a terminal does not need it

    files = write(document, folder)
    raw = document.data["leaderboard"]
    if raw["score"].notna().any():
        files.append(folder / "leaderboard.png")
        curves(board_curves(raw), document.title, "mean score over tasks (0-100)", files[-1])
    return files


def board_curves(raw: pd.DataFrame) -> Curves:
    """The mean score over all tasks by retention, one curve per method.

    Args:
        raw: the document's ``leaderboard`` data.
    """
    lines = [
        Curve(
            str(method),
            [100 * share for share in part["retention"]],
            list(part["score"]),
            list(part["score_low"]),
            list(part["score_high"]),
        )
        for method, part in raw[raw["group"] == ""].groupby("method", sort=False)
    ]
    return Curves("retention", "KV entries kept, % of the prompt", lines)


def _table(title: str, ranking: Ranking, group: str, retentions: Sequence[float]) -> Table:
    """Methods from the best to the worst, and across the retentions the score and its difference to the full cache."""
    raw = ranking.scores[ranking.scores["group"] == group]
    by_place = {(row["method"], row["retention"]): row for row in raw.to_dict("records")}
    places = [
        TableCell(str(place), float(place)) if method in ranking.means else TableCell(DASH)
        for place, method in enumerate(ranking.methods, 1)
    ]
    columns = [Column("#", places), texts("method", ranking.methods)]
    if not group:
        means = [ranking.means.get(method, MISSING) for method in ranking.methods]
        columns.append(Column("mean", [number_cell(value, number(value, 2)) for value in means]))
    for retention in retentions:
        rows = [by_place[method, retention] for method in ranking.methods]
        at = f"at {100 * retention:g} %"
        scores = [
            number_cell(row["score"], number(row["score"], 2), small=interval(row["score_low"], row["score_high"]))
            for row in rows
        ]
        differences = [
            number_cell(
                row["difference"],
                f"{signed(row['difference'])} ({interval(row['difference_low'], row['difference_high'])})",
                large=signed(row["difference"]),
                small=interval(row["difference_low"], row["difference_high"]),
            )
            for row in rows
        ]
        columns += [
            Column(at, scores),
            Column(
                f"to the full cache {at} ({LEVEL} % interval)", differences, spare=0, page_header="to the full cache"
            ),
        ]
    return Table(title, columns, 2)


def _notes(ranking: Ranking, named: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    value, low, high = ranking.full
    tasks = ", ".join(
        f"{plain(name)} ({f'{len(named[name])} tasks, ' if len(named[name]) > 1 else ''}{count} examples)"
        for name, count in ranking.examples.items()
    )
    around = f" ({LEVEL} % interval {interval(low, high)})" if low == low else ""
    notes = [
        f"Headline scores, 0-100, averaged over {tasks}. The full cache scores {number(value, 2)}{around}.",
        "Methods are compared at what they kept, not at what they were given: between two budgets a score is "
        "interpolated on the logarithm of retention, and beyond a method's budgets there is a dash.",
        f"Differences are paired: {LEVEL} % bootstrap intervals over examples.",
    ]
    if ranking.compared:
        shares = ", ".join(f"{100 * share:g}" for share in ranking.compared)
        notes.append(
            f"Ranked by the mean of the scores at {shares} %, which every ranked method reaches in every task."
        )
    if left := [plain(method) for method in ranking.methods if method not in ranking.means]:
        notes.append(f"Without a rank, as no retention is reached in every task: {', '.join(left)}.")
    return notes + list(dict.fromkeys(task.note for members in named.values() for task in members if task.note))
