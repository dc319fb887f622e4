"""Whole prompts beside the report page, a script file each, which the page loads when a reader asks for it.

A page that was opened from a disk may fetch nothing, but may load a script. The script calls one function of the page
with a packed text.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from harness.report.page.examples import prompt_hashes, visible
from harness.store.files import write_atomically
from harness.store.prompts import read_prompt, saved_prompts
from harness.store.reader import Grid
from harness.text import packed


def folder_of(page: Path) -> Path:
    """The folder of a page's prompts, which lies beside it and bears its name."""
    return page.with_suffix(".prompts")


def write_prompts(grid: Grid, page: Path) -> frozenset[str]:
    """Write the prompts of a grid that its runs have saved; what is there stays, what is shown no more goes.

    Args:
        grid: a model and a task.
        page: the page's file.

    Returns:
        The hashes of the prompts that lie beside the page.

    Raises:
        OSError: a file cannot be written.
    """
    folder = folder_of(page) / grid.result.model / grid.result.task
    there = {path.stem: path for path in folder.glob("*.js")}
    shown = prompt_hashes(grid.result)
    saved: dict[str, str] = {}
    for task in {cell.parent for cell in grid.folders.values()}:
        saved |= saved_prompts(task)
    known = shown & saved.keys()
    for sha256 in known - there.keys():
        with suppress(ValueError):
            text = packed(visible(read_prompt(saved[sha256]), longest=None))
            folder.mkdir(parents=True, exist_ok=True)
            there[sha256] = folder / f"{sha256}.js"
            write_atomically(there[sha256], f'kvgaugePrompt("{sha256}", "{text}");\n')
    for sha256 in there.keys() - known:
        there[sha256].unlink(missing_ok=True)
    return frozenset(known & there.keys())
