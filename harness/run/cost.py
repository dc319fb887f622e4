"""What a run will cost: tokens, peak memory and seconds, without loading weights.

Seconds follow from what prefills and steps cost in recorded runs, or in a calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from socket import gethostname

import torch
from rich.console import Console

from harness.engine.memory import free_bytes, prefill_bytes, prompt_row_bytes, rows_that_fit
from harness.engine.model_spec import choose_device
from harness.engine.request import Request, contexts, prompts_of
from harness.engine.weights_size import weights_bytes
from harness.printing import say
from harness.run.prepare import Prepared
from harness.run.progress import duration
from harness.store.costs import Costs
from harness.store.run_log import RunLine, read_runs
from harness.text import size_text


@dataclass(frozen=True)
class Basis:
    """What seconds are estimated from.

    Attributes:
        costs: what work cost.
        source: what that work was, in words: ``3 recorded runs of a task``.
        device: name of the device.
        peak_bytes: the most memory that was held at a time.
    """

    costs: Costs
    source: str
    device: str
    peak_bytes: int


def print_cost(tasks: Sequence[Prepared], basis: Basis | None, console: Console) -> None:
    """Print what is to compute, the memory and the time that it takes.

    Args:
        tasks: all tasks of a run.
        basis: what seconds are estimated from; None if nothing is known.
        console: where to print.
    """
    asked = [request for prepared in tasks for request in prepared.requests]
    if not asked:
        say(console, "cost: none, as every record is there")
        return
    rows = sum(request.rows for request in asked)
    most = sum(
        request.rows * len(request.turns) * prepared.run.task.max_new_tokens
        for prepared in tasks
        for request in prepared.requests
    )
    prompt_tokens = sum(_tokens_to_prefill(prepared) for prepared in tasks)
    lines = [f"tokens: {prompt_tokens:,} to prefill; to generate at most {most:,}, in {rows:,} rows"]
    lines.append(_memory(tasks))
    if basis is None:
        run = tasks[0].run
        lines += [
            f"time: unknown, as {run.folder_of_results} has no recorded run of {run.model} on this device: "
            "dry_run=measure loads the model and measures for a few seconds",
        ]
    else:
        seconds = sum(_seconds(prepared, basis.costs) for prepared in tasks)
        lines += [
            f"time: about {duration(seconds)} besides loading and tables, from {basis.source} on {basis.device}: "
            f"prompts of {basis.costs.prompt_length:,.0f} tokens on average, "
            f"{size_text(basis.peak_bytes)} of memory at most",
        ]
    for line in lines:
        say(console, line, indent="      ")


def recorded(tasks: Sequence[Prepared]) -> Basis | None:
    """What the recorded runs of a model on this device cost; None if there are none.

    If there are runs of the same methods or width, others do not count.
    """
    run = tasks[0].run
    device = run.checkpoint.provenance["device"]
    kernels = run.engine_settings.kernels_of(run.checkpoint.spec, run.checkpoint.config)
    lines = [
        line
        for folder in sorted((run.folder_of_results / run.model).glob("*/"))
        for line in read_runs(folder)
        if line.costs.tokens
        and (line.device, line.kernels) == (device, kernels)
        and (_device(tasks).type == "cuda" or line.host == gethostname())  # names of processors do not tell them apart
    ]
    labels, width = {cell.label for cell in tasks[0].manifests}, width_of(tasks)
    likeness = [(_labels(line) == labels) + (line.width == width) for line in lines]
    lines = [line for line, alike in zip(lines, likeness, strict=True) if alike == max(likeness)]
    if not lines:
        return None
    costs = sum((line.costs for line in lines), Costs())
    number = "1 recorded run of a task" if len(lines) == 1 else f"{len(lines)} recorded runs of a task"
    return Basis(costs, number, device, max(line.peak_bytes for line in lines))


def width_of(tasks: Sequence[Prepared]) -> int:
    """Largest number of rows of a run that decode together."""
    run = tasks[0].run
    settings = run.engine_settings
    if settings.exact:
        return 1
    if settings.width != "auto":
        return settings.width
    weights = weights_bytes(run.checkpoint.spec, run.checkpoint.config) or 0
    return rows_that_fit(max(0, free_bytes(_device(tasks)) - weights), max(map(_row_bytes, tasks)))


def _tokens_to_prefill(prepared: Prepared) -> int:
    """Tokens of the prompts to compute, or of their contexts, each once."""
    prompts = prompts_of(prepared.requests)
    once = contexts(prompts) if prepared.run.selection.after == "context" else prompts
    return sum(prompt.context_tokens for prompt in once)


def _seconds(prepared: Prepared, costs: Costs) -> float:
    """Seconds that a task takes."""
    requests, most = prepared.requests, prepared.run.task.max_new_tokens
    length = most * costs.share
    of_step, of_token = costs.of_step
    width, settings = width_of([prepared]), prepared.run.engine_settings
    unsaved = settings.unsaved_tokens_on(_device([prepared]))
    tokens = steps = 0.0
    for batch in _batches(requests, width, unsaved):
        rows = costs.rows_of_variant * sum(request.rows for request in batch)
        turns = max(len(request.turns) for request in batch)
        tokens += costs.rows_of_variant * sum(request.rows * len(request.turns) for request in batch) * length
        steps += turns * ceil(rows / width) * costs.longest(length, max(1.0, min(rows, width)), most)
    return (
        costs.of_prompt_token * _tokens_to_prefill(prepared)
        + of_token * tokens
        + of_step * steps
        + costs.of_prompt * len(requests)
    )


def _batches(requests: Sequence[Request], width: int, unsaved: int) -> Iterator[list[Request]]:
    """Requests that decode together, as if all rows were equally long; see ``Scheduler``."""
    batch: list[Request] = []
    rows = tokens = 0
    for request in requests:
        more, longer = request.rows, len(request.turns[-1].ids)
        if batch and (rows + more > width or tokens + longer > unsaved):
            yield batch
            batch, rows, tokens = [], 0, 0
        batch.append(request)
        rows, tokens = rows + more, tokens + longer
    if batch:
        yield batch


def _memory(tasks: Sequence[Prepared]) -> str:
    """The line about memory: weights, as many rows as decode together, and a prefill of the longest prompt."""
    run = tasks[0].run
    spec, config = run.checkpoint.spec, run.checkpoint.config
    weights, width = weights_bytes(spec, config), width_of(tasks)
    rows, of_rows, longest = 0, 0, 0
    for prepared in tasks:
        together = min(width, sum(request.rows for request in prepared.requests))
        if together and (size := together * _row_bytes(prepared)) >= of_rows:
            rows, of_rows = together, size
        longest = max(longest, *(len(request.turns[-1].ids) for request in prepared.requests), 0)
    of_prefill = prefill_bytes(config, spec.torch_dtype(config), longest, run.engine_settings.chunk_tokens)
    parts = f"{rows} rows {size_text(of_rows)}, a prefill {size_text(of_prefill)}"
    if weights is None:
        line = f"memory: about {size_text(of_rows + of_prefill)} beside the weights, which are not here: {parts}"
    else:
        line = f"memory: about {size_text(weights + of_rows + of_prefill)}: weights {size_text(weights)}, {parts}"
    return line if _device(tasks).type == "cuda" else f"{line}, beside Python's own"


def _row_bytes(prepared: Prepared) -> int:
    """Bytes of a row of the longest prompt, on average."""
    run = prepared.run
    spec, config = run.checkpoint.spec, run.checkpoint.config
    if not prepared.requests:
        return 1
    longest = max(prepared.requests, key=lambda request: len(request.turns[-1].ids))
    return prompt_row_bytes(config, spec.torch_dtype(config), longest, run.task.max_new_tokens, run.selection)


def _device(tasks: Sequence[Prepared]) -> torch.device:
    return choose_device(tasks[0].run.checkpoint.spec.device)


def _labels(line: RunLine) -> set[str]:
    """Names of the methods that a run was of."""
    return {name.rpartition("-")[0] for name in line.cells}
