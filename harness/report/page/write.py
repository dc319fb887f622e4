"""The report page: everything that a results folder holds in one file, which asks nothing of the network.

The page's policy (Content-Security-Policy) lets only its own script run, by hash, and what that script loads, by a
number: whole prompts beside the page. Nothing can be fetched. Texts reach the page through Jinja's escaping or as
packed data, and are shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import pandas as pd

from harness.compression.budget import FULL
from harness.report.document import Document, Table
from harness.report.leaderboard import Board, board_curves
from harness.report.nonsense import nonsense_notes
from harness.report.notes import KEPT, SAME_AS, task_notes
from harness.report.page.charts import Chart, Panels, chart, heatmaps, scale
from harness.report.page.examples import blocks, first_places, index, left_out
from harness.report.page.kept import held_by_step, kept_by_layer
from harness.report.page.matrix import Matrix, matrix
from harness.report.page.prompts import folder_of, write_prompts
from harness.report.page.tables import LEGEND, origins
from harness.report.stats.curves import score_curves
from harness.report.stats.table import table
from harness.report.suite_tables import averages_table, headline, suite_table, wide_table
from harness.report.task_tables import score_table
from harness.results import SuiteResult
from harness.store.files import write_atomically
from harness.store.reader import Grid
from harness.text import packed, plain

_TEMPLATES = Path(__file__).parent / "templates"
_NONCE = "nonce-of-this-page"
"""What stands in the page's policy until its number is known."""


@dataclass(frozen=True)
class View:
    """One view of the page: a leaderboard, a suite, a task, or a comparison with published numbers.

    Attributes:
        address: where it is within the page.
        model: the model's name.
        name: what it is called below the model.
        kind: ``leaderboard``, ``suite``, ``task`` or ``published``.
        facts: one line of counts.
        notes: what a reader must know.
        tables: the first with the numbers of the charts.
        charts: scores by retention and by budget.
        matrix: scores, methods by budgets.
        heatmaps: of a task with axes.
        kept: entries kept by layer, or by layer and head.
        held: entries held while decoding, step by step.
        origins: where the numbers come from.
        settings: those of the first cell, as JSON.
        index: of the examples, packed.
        blocks: texts of the examples, packed.
    """

    address: str
    model: str
    name: str
    kind: str
    facts: str
    notes: Sequence[str]
    tables: Sequence[Table]
    charts: Sequence[Chart] = ()
    matrix: Matrix | None = None
    heatmaps: Panels | None = None
    kept: Panels | None = None
    held: Panels | None = None
    origins: Table | None = None
    settings: str = ""
    index: str = ""
    blocks: Sequence[str] = ()


def write_page(
    grids: Sequence[Grid], together: Sequence[SuiteResult], beside: Sequence[tuple[Path, Document]], path: Path
) -> Path:
    """Write the page, and beside it the whole prompts that runs have saved; the same results give the same bytes.

    Args:
        grids: one per model and task.
        together: the suites they belong to.
        beside: what ``kvgauge compare`` would write: folder below the report, and document.
        path: the file to write; its folder is created if need be.

    Returns:
        ``path``.
    """
    prompts = [write_prompts(grid, path) for grid in grids]
    tasks = [_task(grid, saved) for grid, saved in zip(grids, prompts, strict=True)]
    views = [*map(_suite, together), *tasks, *(_published(*document) for document in beside)]
    beside_it = folder_of(path).name if any(prompts) else ""
    return _write(views, list(dict.fromkeys(grid.result.model for grid in grids)), path, beside_it)


def write_board_page(
    board: Board, model: str, grids: Sequence[Grid], together: Sequence[SuiteResult], path: Path
) -> Path:
    """Write the page of a leaderboard, which has numbers alone: no text of a task, its data or an answer.

    It can be passed on where data cannot. The leaderboard comes first, then suites, then tasks that are in none.

    Args:
        board: the leaderboard.
        model: the model's name.
        grids: the model's grids.
        together: the suites they belong to.
        path: the file to write; its folder is created if need be.

    Returns:
        ``path``.
    """
    in_suites = {task.task for suite in together for task in suite.tasks}
    alone = [_numbers(grid) for grid in grids if grid.result.task not in in_suites]
    return _write([_board(board, model), *map(_suite, together), *alone], [model], path)


def _write(views: Sequence[View], models: Sequence[str], path: Path, prompts: str = "") -> Path:
    """Write a page of views, model by model in the order of ``models``; ``prompts`` is the folder of whole prompts."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    text = environment.get_template("report.html.j2").render(
        views=sorted(views, key=lambda view: models.index(view.model)),
        models=models,
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        scale=scale(),
        legend=LEGEND,
        prompts=prompts,
        nonce=_NONCE,
    )
    # A hash of the page: no text in the page can name it. The first place is the policy's, before any text of others.
    if prompts:
        text = text.replace(_NONCE, f"nonce-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()}", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def _task(grid: Grid, prompts: Collection[str] = (), texts: bool = True) -> View:
    """A task; without texts, what would lead to an example is left out with them."""
    result = grid.result
    settings = next(iter(grid.manifests.values())).settings
    examples = max((cell.expected for cell in result.cells), default=0)
    # The page's own headings say what was kept, and aliases are named in their column.
    notes = [note for note in task_notes(result) if note not in (KEPT, SAME_AS)]
    return View(
        address=f"{result.model}/{result.task}",
        model=result.model,
        name=result.task,
        kind="task",
        facts=f"{_count(len(result.cells), 'cell')}, {_count(examples, 'example')}",
        notes=[*notes, *(left_out(result) if texts else [])],
        tables=[score_table(result)],
        charts=_charts(table(result), result.metrics[0].title) if result.metrics else (),
        matrix=matrix(table(result), result.metrics[0].title) if result.metrics else None,
        heatmaps=heatmaps(result, first_places(result) if texts and result.heatmap_axes else {}),
        kept=kept_by_layer(result),
        held=held_by_step(result),
        origins=origins(grid.manifests.values()),
        settings=json.dumps(
            {name: settings[name] for name in ("model", "task", "selection") if name in settings}, indent=2
        ),
        index=packed(index(result)) if texts else "",
        blocks=[packed(block) for block in blocks(result, prompts)] if texts else (),
    )


def _numbers(grid: Grid) -> View:
    """A task without its examples, and without what is large and no score."""
    return replace(_task(grid, texts=False), kept=None, held=None)


def _board(board: Board, model: str) -> View:
    raw, ranking = board.ranking.scores, board.ranking
    shown = pd.concat([raw[(raw["group"] == "") & (raw["method"] == method)] for method in ranking.methods])
    shown = shown.assign(budget=[f"{100 * share:g}%" for share in shown["retention"]])
    value, low, high = ranking.full[""]
    whole = {"method": board.full, "budget": FULL.text, "score": value, "score_low": low, "score_high": high}
    title = "mean score over tasks"
    drawn = chart(board_curves(board), title)
    return View(
        address=f"{model}/leaderboard",
        model=model,
        name="Leaderboard",
        kind="leaderboard",
        facts=", ".join(
            [
                _count(len(ranking.methods), "method"),
                _count(len(ranking.examples), "task"),
                _count(sum(ranking.examples.values()), "example"),
            ]
        ),
        notes=[plain(note) for note in board.document.notes],
        tables=board.document.tables,
        charts=[drawn] if drawn else (),
        matrix=matrix(pd.concat([pd.DataFrame([whole]), shown]), title),
    )


def _suite(result: SuiteResult) -> View:
    raw, title = suite_table(result), headline(result)
    averages = [averages_table(raw)] if result.averages else []
    return View(
        address=f"{result.model}/{result.suite}",
        model=result.model,
        name=result.suite,
        kind="suite",
        facts=f"{_count(len(result.tasks), 'task')}, {_count(len(result.tasks[0].cells), 'cell')}",
        notes=[
            *dict.fromkeys(plain(task.note) for task in result.tasks if task.note),
            *nonsense_notes({task.task: task for task in result.tasks}),
        ],
        tables=[*averages, wide_table("Scores by task", raw[raw["kind"] == "task"])],
        charts=_charts(raw[raw["column"] == title], title),
        matrix=matrix(raw[raw["column"] == title], title),
    )


def _published(folder: Path, document: Document) -> View:
    model, suite, name = folder.parts
    return View(
        address=f"{model}/{suite}/{name}/{document.stem}",
        model=model,
        name=f"{suite} beside {name}" if document.stem == "compare" else f"{suite}: {document.stem}",
        kind="published",
        facts=plain(document.title),
        notes=[plain(note) for note in document.notes],
        tables=document.tables,
    )


def _charts(raw: pd.DataFrame, title: str) -> list[Chart]:
    """Scores over retentions and over budgets, those of them that have a score."""
    drawn = [chart(curves, plain(title)) for curves in reversed(score_curves(raw))]
    return [one for one in drawn if one is not None]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
