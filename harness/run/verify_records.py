"""Checks of a cell that need only its records and manifest: fingerprint, kept entries, aliases, scores and summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.compression.allocation import Shape
from harness.compression.budget import parse_budget
from harness.compression.grid import Variant, Waiting
from harness.compression.storage import EXACT
from harness.config.catalog import Choice
from harness.config.recorded import recorded_method, recorded_storage
from harness.errors import ConfigError, KvgaugeError
from harness.report.stats.summary import cell_summary
from harness.results import Cell, CellResult, Manifest, Record, by_head, layer_means
from harness.run.verdict import Verdict, as_json, close, equal, same_scores
from harness.store.cells import read_scores
from harness.store.manifest import fingerprint
from harness.store.reader import Grid
from harness.store.rescoring import recorded_task, rescored
from harness.store.scoring import sampled_metrics, samples_of
from harness.task import Metric, Task, published_examples

_MOST_COPIES = 16
"""Query heads of a kv head, in any model there is."""


def without_model(grid: Grid, methods: Sequence[Choice]) -> tuple[dict[Cell, Verdict], dict[Cell, Variant]]:
    """Check whether records and manifests agree with each other.

    Args:
        grid: a task's cells.
        methods: the methods whose code may be used; no other class that a manifest names is imported.

    Returns:
        The verdicts by cell, and the variants of the cells whose method is among ``methods``.

    Raises:
        KvgaugeError: the task cannot be built.
    """
    verdicts, variants = {}, {}
    by_name = {cell.cell.name: {record.example_id: record for record in cell.records} for cell in grid.result.cells}
    for result in grid.result.cells:
        cell, manifest, folder = result.cell, grid.manifests[result.cell], grid.folders[result.cell]
        verdict = verdicts[cell] = Verdict(cell, len(result.records))
        task = recorded_task(manifest, folder)
        _check_fingerprint(manifest, verdict)
        _check_metrics(manifest, task, verdict)
        variant = _variant(manifest, methods, verdict)
        if variant is not None:
            variants[cell] = variant
            windows = bool(manifest.provenance.get("window_layers"))
            verdict.compare("kept entries", ((r, _is_planned(r, variant, windows)) for r in result.done))
            aliases = [r for r in result.done if r.alias_of in by_name]
            verdict.compare("aliases", ((r, _is_alias(r, by_name[str(r.alias_of)].get(r.example_id))) for r in aliases))
        verdict.compare("scores", ((r, same_scores(rescored(r, task).scores, r.scores)) for r in result.done))
        _check_summary(result, grid.result.metrics, read_scores(folder), verdict)
        if result.errors:
            verdict.open.append(f"{result.errors} error records: not computed again")
    return verdicts, variants


def _check_fingerprint(manifest: Manifest, verdict: Verdict) -> None:
    recorded = manifest.provenance.get("fingerprint")
    if recorded is None:
        verdict.open.append("its manifest has no fingerprint")
    elif recorded != fingerprint(manifest.settings):
        verdict.wrong.append("the manifest's settings are not those of its fingerprint")
    else:
        verdict.checked.append("fingerprint")


def _check_metrics(manifest: Manifest, task: Task, verdict: Verdict) -> None:
    """Whether the manifest's metrics, axes and groups, which shape tables and plots, are those of the task."""
    expected = {
        "metrics": sampled_metrics(task.metrics, samples_of(manifest.settings)),
        "heatmap_axes": task.heatmap_axes,
        "breakdown": task.breakdown,
        "published": published_examples(task),
    }
    if wrong := [name for name, value in expected.items() if as_json(getattr(manifest, name)) != as_json(value)]:
        verdict.wrong.append(f"the manifest's {wrong[0]} are not those of its task")
    else:
        verdict.checked.append("metrics")


def _variant(manifest: Manifest, methods: Sequence[Choice], verdict: Verdict) -> Variant | None:
    """The cell's variant, built from its settings; None for an imported cell or a method that is not known here."""
    if "method" not in manifest.settings:
        verdict.open.append("imported: nobody knows what was kept")
        return None
    recorded = manifest.settings["method"]
    if not isinstance(recorded.get("class"), str):
        verdict.wrong.append("its settings name no method")
        return None
    try:
        method = recorded_method(recorded, manifest.cell.label, {method.target for method in methods})
        if isinstance(method, str):
            verdict.open.append(
                f"its method {method[:80]} is not here (--method-path says where methods of your own are)"
            )
            return None
        sampling = manifest.settings.get("sampling", {})
        drawn = 0 if "reference" in sampling else samples_of(manifest.settings)
        storage = recorded_storage(manifest.settings.get("storage"), manifest.cell.label) or EXACT
        return Variant(manifest.cell, method, parse_budget(manifest.cell.budget), drawn, storage)
    except ConfigError as error:
        verdict.wrong.append(f"its settings make no method or no storage ({error})")
        return None


def _is_planned(record: Record, variant: Variant, windows: bool = False) -> bool:
    """Whether a record kept the number of entries that its budget allows, and states the right share of the prompt.

    Args:
        record: the record.
        variant: its cell's.
        windows: whether the model has layers with windows, whose bytes are among those that were kept.
    """
    if record.compressed_tokens is None:
        return False
    if not record.kept:  # of a model all of whose layers have windows
        return variant.method.scorer is None and record.retention == 1
    share = fmean(layer_means(record.kept)) / record.compressed_tokens
    if record.retention is None or not close(share, record.retention):
        return False
    return any(_fits(record, variant, shape, windows) for shape in _shapes(record, record.compressed_tokens))


def _fits(record: Record, variant: Variant, shape: Shape, windows: bool) -> bool:
    """Whether a record kept what its budget allows if prompt and model have this shape."""
    try:
        plan = variant.plan(shape)
    except KvgaugeError:  # such as a file of scores for a model with other heads
        return False
    return plan.keep == record.kept if plan.waiting is None else _is_possible(record, plan.waiting, windows)


def _shapes(record: Record, tokens: int) -> Iterator[Shape]:
    """The shapes that a record leaves open: it has the cache's heads, not how many query heads share a kv head."""
    layers, heads = len(record.kept), max(len(by_head(counts)) for counts in record.kept)
    yield Shape(tokens, layers, heads, heads, heads)
    if heads > 1:
        shared = [copies for copies in range(2, _MOST_COPIES + 1) if heads % copies == 0]
        yield from (Shape(tokens, layers, heads, heads // copies, heads) for copies in shared)
        yield from (Shape(tokens, layers, heads * copies, heads, heads) for copies in range(2, _MOST_COPIES + 1))


def _is_possible(record: Record, waiting: Waiting, windows: bool) -> bool:
    """Whether an allocation that had to see the prompt can have kept these numbers.

    Which of the possible ones it kept, its layers said, and only the model can say it again.
    """
    kept, shape = record.kept, waiting.shape
    ragged = [counts for counts in kept if not isinstance(counts, int)]
    if len({len(counts) for counts in ragged}) > 1 or any(len(set(counts)) == 1 for counts in ragged):
        return False  # layers have equally many heads, and equal heads are one number
    least = max(1, shape.window)
    if any(not least <= count <= shape.tokens for counts in kept for count in by_head(counts)):
        return False
    total = sum(counts * shape.cache_heads if isinstance(counts, int) else sum(counts) for counts in kept)
    return total <= waiting.allocation.total(waiting.budget, shape) and (windows or _bytes_fit(record))


def _bytes_fit(record: Record) -> bool:
    """Whether the share of bytes is that of entries, times the query heads of a kv head if query heads are stored.

    A layer that keeps everything is stored with kv heads, so nothing is known of a record with one, nor of one with
    packed entries.
    """
    if (
        record.bits is not None
        or record.retention_bytes is None
        or not record.retention
        or record.compressed_tokens in record.kept
    ):
        return True
    times = record.retention_bytes / record.retention
    return times > 0.5 and close(times, round(times))


def _is_alias(record: Record, other: Record | None) -> bool:
    """Whether the record that an alias points to kept and generated the same; True if that record is not on disk."""
    return other is None or (other.kept_sha256, list(other.tokens)) == (record.kept_sha256, list(record.tokens))


def _check_summary(
    result: CellResult, metrics: Sequence[Metric], summary: Mapping[str, Any] | None, verdict: Verdict
) -> None:
    """Whether ``summary``, the contents of ``scores.json``, is what the records give."""
    if summary is None:
        verdict.open.append("unfinished: no scores.json")
        return
    expected = summary.get("expected")
    if type(expected) is not int or expected < len(result.records):
        verdict.wrong.append(
            f"scores.json says expected={str(expected)[:60]}, but there are {len(result.records)} records"
        )
        return
    again = cell_summary(CellResult(result.cell, expected, result.records), metrics)
    wrong = [
        name
        for name in {**summary, **again}
        if name not in summary or name not in again or not equal(summary[name], again[name])
    ]
    if wrong:
        name = wrong[0]
        verdict.wrong.append(
            f"scores.json says {name[:60]}={str(summary.get(name))[:60]}, its records give {again.get(name)}"
        )
    else:
        verdict.checked.append("scores.json")
