"""The report page: everything that a results folder holds in one file, which asks nothing of the network.

The page's policy (Content-Security-Policy) lets only its own script run, by hash, and nothing be fetched; texts reach it through Jinja's
escaping or as packed data, and are shown as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import jinja2
import pandas as pd

from harness.report.notes import cell_notes, error_notes, published_notes
from harness.report.page.charts import Chart, Panels, chart, heatmaps, kept_by_layer, scale
from harness.report.page.examples import blocks, index, left_out, packed
from harness.report.page.tables import LEGEND, PageTable, origins, sheet_table, suite_scores, summary_table
from harness.report.render import Sheet
from harness.report.stats.table import table
from harness.report.suite_tables import curve_of, headline, suite_table
from harness.results import SuiteResult, TaskResult
from harness.store.files import write_atomically
from harness.store.reader import Grid
from harness.text import plain

_TEMPLATES = Path(__file__).parent / "templates"
_ALL = 100.0
_RETENTION, _BUDGET = "KV entries kept, % of the prompt", "budget, KV entries per head and layer"


@dataclass(frozen=True)
class Part:
    """One view of the page: a task, a suite, or a comparison with published numbers.

    Attributes:
        place: its address within the page.
        model: the model's name.
        name: what it is called below the model.
        kind: ``suite``, ``task`` or ``published``.
        facts: one line of counts.
        notes: what a reader must know.
    """

    place: str
    model: str
    name: str
    kind: str
    facts: str
    notes: Sequence[str]
    tables: Sequence[PageTable] = ()
    charts: Sequence[Chart] = ()
    heatmaps: Panels | None = None
    kept: Panels | None = None
    origins: PageTable | None = None
    settings: str = ""
    index: str = ""
    blocks: Sequence[str] = field(default_factory=tuple)


def write_page(grids: Sequence[Grid], together: Sequence[SuiteResult], beside: Sequence[tuple[Path, str, Sheet]], path: Path) -> Path:
    """Write the page; the same results give the same bytes.

    Args:
        grids: one per model and task.
        together: the suites they belong to.
        beside: what ``kvgauge compare`` would write: folder below the report, stem, sheet.
        path: the file to write; its folder is created if need be.

    Returns:
        ``path``.
    """
    parts = [*map(_suite, together), *map(_task, grids), *(_published(*sheet) for sheet in beside)]
    order = {model: place for place, model in enumerate(dict.fromkeys(grid.result.model for grid in grids))}
    parts.sort(key=lambda part: order[part.model])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    text = environment.get_template("report.html.j2").render(
        parts=parts,
        models=list(order),
        style=(_TEMPLATES / "report.css").read_text(encoding="utf-8"),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        scale=scale(),
        legend=LEGEND,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text)
    return path


def _task(grid: Grid) -> Part:
    result = grid.result
    raw = table(result)
    settings = next(iter(grid.manifests.values())).settings
    examples = max((cell.expected for cell in result.cells), default=0)
    return Part(
        place=f"{result.model}/{result.task}",
        model=result.model,
        name=result.task,
        kind="task",
        facts=f"{_count(len(result.cells), 'cell')}, {_count(examples, 'example')}",
        notes=[*_notes(result), *left_out(result)],
        tables=[summary_table(result, raw)],
        charts=list(_charts(raw, plain(result.metrics[0].title))) if result.metrics else [],
        heatmaps=heatmaps(result),
        kept=kept_by_layer(result),
        origins=origins(grid.manifests.values()),
        settings=json.dumps({name: settings[name] for name in ("model", "task", "selection") if name in settings}, indent=2),
        index=packed(index(result)),
        blocks=[packed(block) for block in blocks(result)],
    )


def _notes(result: TaskResult) -> list[str]:
    notes = [plain(result.note)] if result.note else []
    return [*notes, *published_notes({result.task: result}), *cell_notes(result.cells), *error_notes(result)]


def _suite(result: SuiteResult) -> Part:
    raw = suite_table(result)
    title = headline(result)
    kinds = [("average", "Averages"), ("task", "Scores by task")]
    return Part(
        place=f"{result.model}/{result.suite}",
        model=result.model,
        name=result.suite,
        kind="suite",
        facts=f"{_count(len(result.tasks), 'task')}, {_count(len(result.tasks[0].cells), 'cell')}",
        notes=list(dict.fromkeys(plain(task.note) for task in result.tasks if task.note)),
        tables=[suite_scores(raw, kind, name) for kind, name in kinds if (raw["kind"] == kind).any()],
        charts=list(_charts(raw[raw["column"] == title], plain(title))),
    )


def _published(place: Path, stem: str, sheet: Sheet) -> Part:
    model, suite, name = place.parts
    return Part(
        place=f"{model}/{suite}/{name}/{stem}",
        model=model,
        name=f"{suite} beside {name}" if stem == "compare" else f"{suite}: {stem}",
        kind="published",
        facts=plain(sheet.title),
        notes=[plain(note) for note in sheet.notes],
        tables=[sheet_table(section) for section in sheet.sections],
    )


def _charts(raw: pd.DataFrame, title: str) -> Iterator[Chart]:
    """Scores over budgets and over retentions, those of them that have a score."""
    for by_retention, across in ((False, _BUDGET), (True, _RETENTION)):
        lines = [curve_of(str(label), part, by_retention) for label, part in raw.groupby("method", sort=False)]
        # A method that always kept everything is a line to hold the others against, and as points would push them into a corner.
        lines = [replace(line, across=[None] * len(line.across)) if set(line.across) == {_ALL} else line for line in lines]
        drawn = chart(lines, f"{title} by {'retention' if by_retention else 'budget'}", across, f"{title} (0-100)")
        if drawn is not None:
            yield drawn


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
