"""What a results folder holds before a run: records that count as its own, and cells that it may not lie beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.prompt import Prompt
from harness.errors import StoreError
from harness.results import Manifest, Record
from harness.store.manifest import check_manifest, check_sibling, read_manifest
from harness.store.reader import check_axes
from harness.store.records import has_records, read_records

if TYPE_CHECKING:
    from harness.run.prepare import Run


def stored_records(run: Run, manifest: Manifest, prompts: Sequence[Prompt]) -> dict[str, Record]:
    """The records in a cell's folder, by example; none if the run has no results folder.

    Raises:
        StoreError: the folder was made with other settings or from another prompt, or is not scored.
    """
    if run.results is None:
        return {}
    folder = run.folder(manifest.cell)
    earlier = read_manifest(folder)
    if earlier is None or not has_records(folder):
        return {}
    check_manifest(folder, earlier, manifest)
    records = read_records(folder)
    check_axes(f"{run.model}/{run.task.name}/{manifest.cell.name}", run.task.heatmap_axes, records.values())
    names = {metric.name for metric in run.task.metrics}
    if any(record.error is None and not names <= record.scores.keys() for record in records.values()):
        raise StoreError(
            f"{folder} has records without the scores it is to have: score them with kvgauge score {folder.parent}"
        )
    for prompt in prompts:
        record = records.get(prompt.example.id)
        if record is not None and record.prompt_sha256 != prompt.sha256:
            raise StoreError(
                f"example {prompt.example.id!r} in {folder} was made from another prompt than it has now: use "
                "another results_dir"
            )
    return records


def check_siblings(there: Mapping[Path, Manifest], wanted: Manifest) -> None:
    """Refuse to put cells beside those of another model, or of the same task with other settings."""
    for folder, sibling in there.items():
        if sibling.cell != wanted.cell and has_records(folder):
            check_sibling(folder, sibling, wanted)
