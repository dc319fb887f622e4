"""``kvgauge verify``: what each cell of a results folder holds, checked, with a line for each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from harness.compression.grid import Variant
from harness.config.build import build, composed, parse_settings
from harness.config.catalog import choices
from harness.config.outside import used
from harness.engine.engine import Engine
from harness.engine.settings import EngineSettings
from harness.errors import ConfigError, DataError, KvgaugeError, ModelError, StoreError
from harness.kernels import Kernels
from harness.printing import say
from harness.results import Cell
from harness.run.checkpoint import Checkpoint, read_checkpoint
from harness.run.verdict import Verdict
from harness.run.verify import kernels_of_runs, prepared_again, with_data, with_model
from harness.run.verify_records import without_model
from harness.store.reader import Grid, read_results
from harness.store.rescoring import recorded_task


def verify(path: Path, given: Sequence[str], sample: int, console: Console) -> None:
    """Check every cell at or below a path, and print a line for each.

    Args:
        path: a results folder or a part of one.
        given: settings of the model, the engine and the task, as ``knob=value``.
        sample: number of examples of each task to prefill and decode again, 0 or more.
        console: where the lines go.

    Raises:
        KvgaugeError: a cell is not what it says; or a model was asked for, by ``sample`` or ``given``, and the model
            or the data cannot be read.
    """
    asked = parse_settings([word for word in given if word.startswith("task.")])
    words = [word for word in given if not word.startswith("task.")]
    if wrong := [word for word in words if not word.startswith(("model=", "model.", "engine."))]:
        raise ConfigError(
            f"--set {wrong[0]} is no setting of the model or the engine: give, for example, --set model.path=<folder>"
        )
    if made := [word for word in words if word.startswith(("model.dtype=", "model.name="))]:
        raise ConfigError(
            f"--set {made[0]} is not for you to say: leave it out, the manifests have what the records were made with"
        )
    methods = choices("method", used())
    results = read_results(path)
    for one in results.left_out:
        say(console, f"WRONG: {one.reason}", indent="  ")
    count = wrong_cells = open_cells = 0
    for grid in results.grids:
        verdicts, variants = without_model(grid, methods)
        if variants:
            try:
                _with_model(grid, variants, verdicts, words, asked, sample)
            except (ModelError, DataError, ConfigError) as error:
                if sample or given:
                    raise
                for cell in variants:
                    verdicts[cell].open.append(f"settings and prompts: {error}")
        for verdict in verdicts.values():
            say(console, _line(grid, verdict), indent="  ")
        count += len(verdicts)
        wrong_cells += sum(bool(verdict.wrong) for verdict in verdicts.values())
        open_cells += sum(bool(verdict.open) for verdict in verdicts.values())
    if wrong_cells:
        raise KvgaugeError(
            f"{wrong_cells} of {count} cells are not what they say: compute them again in another results folder, or "
            "ask who made them"
        )
    if results.left_out:
        raise KvgaugeError(
            f"{count} cells hold, but {results.left_out[0].path} "
            + (f"and {len(results.left_out) - 1} more folders are" if len(results.left_out) > 1 else "is")
            + " none of them: do as the lines that begin with WRONG say"
        )
    console.print(
        f"{count} cells hold" + (f", of {open_cells} of them not everything could be told" if open_cells else "")
    )


def _with_model(
    grid: Grid,
    variants: Mapping[Cell, Variant],
    verdicts: Mapping[Cell, Verdict],
    words: Sequence[str],
    asked: Mapping[str, Any],
    sample: int,
) -> None:
    """Run the checks that need the model's files and, for a sample, its weights.

    Raises:
        KvgaugeError: the model or the task's data cannot be read.
    """
    checkpoint, settings = _checkpoint(grid, words)
    made_by = kernels_of_runs(grid)
    if not any(word.startswith("engine.kernels=") for word in words):
        settings = _as_made(settings, made_by, checkpoint)
    engine = Engine.load(checkpoint.spec, config=checkpoint.config, kernels=settings.kernels) if sample else None
    for prepared, examples in prepared_again(grid, variants, checkpoint, settings, asked):
        with_data(grid, prepared, examples, verdicts)
        if engine is not None:
            with_model(grid, prepared, engine, sample, made_by, verdicts)


def _checkpoint(grid: Grid, words: Sequence[str]) -> tuple[Checkpoint, EngineSettings]:
    """The model of a grid, from ``words`` or else from the preset of its name, in the dtype of the records."""
    name = grid.result.model
    if not any(word.startswith("model=") for word in words):
        presets = [
            choice.name
            for choice in choices("model")
            if re.search(rf"^name: {re.escape(name)}$", choice.text, re.MULTILINE)
        ]
        if not presets:
            raise ConfigError(
                f"no preset has the name {name}: say where the model is, with --set model=hf --set model.path=<folder>"
            )
        words = [f"model={presets[0]}", *words]
    manifest, folder = next((grid.manifests[cell], grid.folders[cell]) for cell in grid.manifests)
    dtype = manifest.settings.get("model", {}).get("dtype")
    if dtype is not None and not re.fullmatch(r"\w+", str(dtype)):  # it becomes part of an override
        raise StoreError(f"model.dtype in the manifest of {folder} is not one: restore the manifest")
    config = composed(*words, *([f"model.dtype={dtype}"] if dtype else []), f"model.name={name}")
    settings = EngineSettings(**{str(knob): value for knob, value in config.engine.items()})
    return read_checkpoint(build(config.model), recorded_task(manifest, folder).needs_tokenizer), settings


def _as_made(settings: EngineSettings, made_by: Sequence[Kernels], checkpoint: Checkpoint) -> EngineSettings:
    """Settings with the kernels that computed a task's records, if those are the same for all and can run here."""
    for kernels in made_by if len(made_by) == 1 else ():
        as_made = replace(settings, kernels=kernels)
        with suppress(ConfigError):
            as_made.kernels_of(checkpoint.spec, checkpoint.config)
            return as_made
    return settings


def _line(grid: Grid, verdict: Verdict) -> str:
    findings = "; ".join(
        [
            *([f"WRONG: {', '.join(verdict.wrong)}"] if verdict.wrong else []),
            *([f"{', '.join(verdict.checked)} agree"] if verdict.checked else []),
            *([f"not told: {', '.join(verdict.open)}"] if verdict.open else []),
        ]
    )
    total = "" if verdict.examples is None else f" of {verdict.examples} examples of the task"
    return f"{grid.result.model}/{grid.result.task}/{verdict.cell.name}: {verdict.records} records{total}; {findings}"
