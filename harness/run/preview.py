"""The preview that ``dry_run=true`` prints: cells, entries to keep, prompts and prefills."""

from __future__ import annotations

from statistics import fmean

from rich import box
from rich.console import Console
from rich.table import Table

from harness.engine.layer_forms import layer_windows, window_entries
from harness.engine.model_spec import entry_bytes, head_dim, shape_of
from harness.engine.request import contexts, prompts_of
from harness.engine.stored import plan_bytes
from harness.errors import ConfigError
from harness.printing import say, width_of
from harness.results import by_head, titled
from harness.run.prepare import Prepared


def print_preview(prepared: Prepared, console: Console) -> None:
    """Print the cells with the entries each would keep and the records it has, then the prompts and the prefills."""
    run = prepared.run
    spec, config = run.checkpoint.spec, run.checkpoint.config
    layers = layer_windows(config).count(None)
    dtype = spec.torch_dtype(config)
    per_entry, _, kv_heads = entry_bytes(config, dtype)
    lengths = [len(prompt.ids) for prompt in prepared.prompts]
    of_context = [prompt.context_tokens for prompt in prepared.prompts]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for header in ("method", "budget", "kept entries per layer", "kept KV bytes per prompt", "examples", "done"):
        table.add_column(header, justify="left" if header in ("method", "budget") else "right")
    variants = {variant.cell: variant for variant in run.variants}
    for variant in (variants[cell] for cell in prepared.manifests):
        entries: list[int] = []
        sizes: list[int] = []
        for tokens in of_context:
            try:
                shape = shape_of(config, tokens, run.selection)
                plan = variant.plan(shape)
            except ConfigError:
                continue
            entries += [count for counts in plan.keep for count in by_head(counts)]
            in_windows = window_entries(config, tokens) * kv_heads * per_entry
            sizes.append(plan_bytes(plan, shape, head_dim(config), dtype) + in_windows)
        table.add_row(
            variant.cell.label,
            variant.cell.budget,
            f"{min(entries)}/{fmean(entries):.0f}/{max(entries)}",
            f"{fmean(sizes):,.0f}",
            f"{len(lengths)}",
            f"{len(prepared.records[variant.cell])}",
        )
    title = titled(run.task.name, run.model, run.selection.after)
    console.print(f"{title}; cells: {len(run.variants)}", highlight=False)
    console.print(table, width=min(width_of(console), console.width), crop=False)
    spread = f"{min(lengths)}/{fmean(lengths):.0f}/{max(lengths)} (min/mean/max)"
    say(console, f"prompts: {len(lengths)}; prompt tokens: {spread}, {sum(lengths):,} in all")
    full = [tokens * layers + window_entries(config, tokens) for tokens in of_context]
    asked, what = prompts_of(prepared.requests), "prompts"
    if run.selection.after == "context":
        asked, what = contexts(asked), "contexts"
    say(
        console,
        f"prefills: {len(asked)} ({what} with a cell that is not done); the full cache is "
        f"{fmean(full) * kv_heads * per_entry:,.0f} bytes per prompt",
    )
    if note := next(iter(prepared.manifests.values())).note:
        say(console, f"note: {note}")
