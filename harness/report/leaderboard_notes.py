"""Notes below a leaderboard: what is averaged, how costs were measured, what a reader must know of the tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from harness.report.format import interval, number
from harness.report.method_costs import MethodCosts
from harness.report.nonsense import nonsense_notes
from harness.report.notes import partial_notes
from harness.report.stats.bootstrap import LEVEL
from harness.report.stats.ranking import Ranking
from harness.results import TaskResult
from harness.text import plain


def board_notes(ranking: Ranking, named: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """What is averaged and compared, and which methods have no rank."""
    tasks = ", ".join(
        f"{plain(name)} ({f'{len(named[name])} tasks, ' if len(named[name]) > 1 else ''}{count} examples)"
        for name, count in ranking.examples.items()
    )
    value, low, high = ranking.full[""]
    around = f" ({LEVEL} % interval {interval(low, high)})" if low == low else ""
    of_tasks = ", ".join(f"{number(ranking.full[name][0], 2)} in {plain(name)}" for name in named)
    notes = [
        f"Headline scores, 0-100, averaged over {tasks}. The full cache scores {number(value, 2)}{around}"
        f"{f': {of_tasks}' if len(named) > 1 else ''}.",
        "Methods are compared at what they kept, not at what they were given: between two budgets a score is "
        "interpolated on the logarithm of retention, and beyond a method's budgets there is a dash.",
        f"Differences are paired: {LEVEL} % bootstrap intervals over examples.",
    ]
    if ranking.compared:
        notes.append(
            f"Ranked by the mean of the scores at {_percents(ranking.compared)}, which every ranked method reaches in "
            "every task; the first differences are of these means."
        )
    if left := [_reach(method, ranking) for method in ranking.methods if method not in ranking.means]:
        asked = _percents(sorted(set(ranking.scores["retention"])))
        why = "Without a rank, as these are not reached" if ranking.compared else f"No rank, as none reaches {asked}"
        notes.append(f"{why} in every task: {', '.join(left)}.")
    return notes


def _reach(method: str, ranking: Ranking) -> str:
    """A method, and the shares that it reaches in every task."""
    reach = ranking.reaches[method]
    if reach is None:
        return f"{plain(method)} (no share in common)"
    shares = " to ".join(dict.fromkeys(f"{100 * share:.3g}" for share in reach))
    return f"{plain(method)} (reaches {shares} %)"


def _percents(shares: Iterable[float]) -> str:
    return f"{', '.join(f'{100 * share:g}' for share in shares)} %"


def cost_notes(ranking: Ranking, costs: MethodCosts | None) -> list[str]:
    """How costs were measured, and of which methods they were not."""
    if costs is None:
        return []
    notes = [
        f"prefill %: what the method, alone, adds to the prefill of {costs.tokens:,} random tokens, in percent of the "
        f"full cache's; median, least and most of {costs.rounds} rounds, {costs.clock} ({costs.device})."
    ]
    if left := [plain(method) for method in ranking.methods if method not in costs.overhead]:
        notes.append(f"Not measured: {', '.join(left)}.")
    return notes


def task_warnings(named: Mapping[str, Sequence[TaskResult]]) -> list[str]:
    """What a reader must know of the tasks, once: of a note that begins as another one does, the rest alone."""
    members = [task for tasks in named.values() for task in tasks]
    said = {task.note for task in members if task.note}
    of_part: dict[str, list[str]] = {}
    for name, tasks in named.items():
        for note in dict.fromkeys(task.note for task in tasks if task.note):
            begun = sorted((other for other in said if note.startswith(other)), key=len)
            for before, whole in pairwise(["", *begun]):
                names = of_part.setdefault(whole.removeprefix(before).strip(), [])
                names += [plain(name)] * (plain(name) not in names)
    return [
        *nonsense_notes({task.task: task for task in members}),
        *partial_notes(cell for task in members for cell in task.cells),
        *(
            plain(part) if len(names) == len(named) else f"{', '.join(names)}: {plain(part)}"
            for part, names in of_part.items()
        ),
    ]
