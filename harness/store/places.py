"""Where cells lie: every folder with a manifest, held against the place that its manifest names.

A cell lies at ``<results>/<model>/<task>/<label>-<budget>``, and its manifest says the same. The manifest of a folder
that was moved, renamed or copied names another place. Such a folder is left out and named, so that it never stands for
the cell of that place. A results folder as a whole can lie anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import KvgaugeError, OtherVersionError, StoreError
from harness.results import Manifest
from harness.store.manifest import read_known, read_manifest


@dataclass(frozen=True)
class LeftOut:
    """A folder that is not read.

    Attributes:
        path: the folder.
        reason: why, and what to do about it, on one line that begins with the path.
        note: the same for readers of a table: the fact alone, with paths below the results folder.
        tasks: the (model, task) pairs that its cells were written for.
    """

    path: Path
    reason: str
    note: str
    tasks: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Places:
    """The cells at or below a folder.

    Attributes:
        root: the results folder that they belong to, which can be above the folder that was asked for.
        manifests: by folder, the manifests of the cells that lie where they were written.
        left_out: the other folders.
        partly: by folder, why this version cannot read all that another one wrote of a cell.
    """

    root: Path
    manifests: Mapping[Path, Manifest]
    left_out: tuple[LeftOut, ...]
    partly: Mapping[Path, str]


_LINK_DEPTH = 2
"""How many folders below a link can be a cell's: a link to a model's folder has tasks and cells."""


def lies_in_place(folder: Path, manifest: Manifest) -> bool:
    """Whether a cell's folder lies where its manifest says, in whatever results folder."""
    return any(same_folder(_below(_root(base), manifest), folder) for base in (folder, folder.resolve()))


def find_cells(path: Path, *, skip_broken: bool = False) -> Places:
    """The cells at or below a folder, and the folders there that are no cells.

    Args:
        path: a results folder, or the folder of a model, a task or a cell in one.
        skip_broken: whether a folder whose manifest cannot be read is left out, instead of an error.

    Raises:
        StoreError: there is no cell, only folders that do not lie where they were written, or several results folders;
            or a manifest of this version cannot be read.
    """
    folders = _folders(path)
    manifests: dict[Path, Manifest] = {}
    broken: list[LeftOut] = []
    partly: dict[Path, OtherVersionError] = {}
    for folder in folders:
        try:
            if (manifest := read_manifest(folder)) is not None:
                manifests[folder] = manifest
        except OtherVersionError as error:
            if (manifest := _known(folder)) is not None:
                manifests[folder], partly[folder] = manifest, error
            else:
                broken.append(left_out_for(folder, error, (folder.parent.parent.name, folder.parent.name)))
        except StoreError as error:
            if not skip_broken:
                raise
            broken.append(left_out_for(folder, error, (folder.parent.parent.name, folder.parent.name)))
    placed = {folder: manifest for folder, manifest in manifests.items() if lies_in_place(folder, manifest)}
    strays = {folder: manifest for folder, manifest in manifests.items() if folder not in placed}
    roots = {os.path.abspath(root): root for root in map(_root, placed)}
    root = roots.get(os.path.abspath(path))
    if root is None and len(roots) > 1:
        first, second, *_ = roots.values()
        raise StoreError(f"{path} holds several results folders, such as {first} and {second}: give one of them")
    root = root or next(iter(roots.values()), None)
    others = {folder: manifest for folder, manifest in placed.items() if root is not None and _root(folder) != root}
    placed = {folder: manifest for folder, manifest in placed.items() if folder not in others}
    left_out = [*_nested(others, path), *_moved(strays, placed, root), *broken]
    if root is None or not placed:
        raise StoreError(left_out[0].reason if left_out else _nothing(path))
    return Places(root, placed, tuple(left_out), {folder: str(partly[folder]) for folder in placed if folder in partly})


def cells_of_task(folder: Path) -> dict[Path, Manifest]:
    """The manifests of the cells in a task's folder, by the folders of the cells that lie where they were written.

    Of a cell of another version, it is what this one knows.

    Raises:
        StoreError: a manifest cannot be read.
    """
    paths = sorted(path.parent for path in folder.glob("*/manifest.json"))
    manifests = {path: manifest for path in paths if (manifest := _as_known(path)) is not None}
    return {path: manifest for path, manifest in manifests.items() if lies_in_place(path, manifest)}


def left_out_for(folder: Path, error: KvgaugeError, task: tuple[str, str]) -> LeftOut:
    """A folder that is left out because of an error, whose text names it.

    Args:
        folder: the folder of a cell or a task.
        error: why it cannot be read.
        task: the model and the task that it belongs to.
    """
    return LeftOut(folder, str(error), f"{folder.name}, which cannot be read", frozenset([task]))


def same_folder(one: Path, other: Path) -> bool:
    """Whether two paths lead to one folder; if it exists, through links or in another case, too."""
    try:
        return os.path.abspath(one) == os.path.abspath(other) or one.samefile(other)
    except OSError:
        return False


def _folders(path: Path) -> list[Path]:
    """All folders with a manifest, with their parents in their paths up to the results folder."""
    folders = sorted(_with_manifests(path))
    if not folders:
        raise StoreError(_nothing(path))
    if any(len(folder.parts) < 3 or ".." in folder.parts for folder in folders):
        return _folders(Path(os.path.abspath(path)))
    return folders


def _with_manifests(path: Path) -> list[Path]:
    """All folders below a path that have a manifest, links followed, and each folder once.

    Of several paths to one folder it is the one without links, or else the one with the fewest folders below a link.
    """
    found: dict[str, tuple[int, Path]] = {}
    starts: list[tuple[str, int | None]] = [(str(path), None)]
    for start, depth in starts:  # which grows by the links in what it has; a link has less depth than one before it
        for folder, folders, files in os.walk(start):
            below = len(Path(folder).relative_to(start).parts)
            if "manifest.json" in files:
                here = (0 if depth is None else 1 + below, Path(folder))
                real = os.path.realpath(folder)
                found[real] = min(found.get(real, here), here)
            left = _LINK_DEPTH if depth is None else depth - below - 1
            if left >= 0:
                links = (os.path.join(folder, name) for name in folders)
                starts += [(link, left) for link in links if os.path.islink(link)]
            else:
                folders.clear()
    return [folder for _, folder in found.values()]


def _as_known(folder: Path) -> Manifest | None:
    """A manifest, or what this version can read of another's."""
    try:
        return read_manifest(folder)
    except OtherVersionError:
        if (manifest := _known(folder)) is None:
            raise
        return manifest


def _known(folder: Path) -> Manifest | None:
    """What this version can read of another's manifest; None if that is nothing."""
    try:
        return read_known(folder)
    except StoreError:
        return None


def _nothing(path: Path) -> str:
    return f"{path} holds no cell (no manifest.json at or below it): give a results folder, or run something first"


def _root(folder: Path) -> Path:
    """The results folder of a cell that lies in this folder."""
    return folder.parent.parent.parent


def _below(root: Path, manifest: Manifest) -> Path:
    return root.joinpath(*_parts(manifest))


def _parts(manifest: Manifest) -> tuple[str, str, str]:
    return manifest.model, manifest.task, manifest.cell.name


def _nested(others: Mapping[Path, Manifest], path: Path) -> list[LeftOut]:
    """One entry for each results folder inside the one that was asked for."""
    tasks: dict[Path, set[tuple[str, str]]] = {}
    for folder, manifest in others.items():
        tasks.setdefault(_root(folder), set()).add(_parts(manifest)[:2])
    return [
        LeftOut(
            root,
            f"{root} is a results folder inside {path}, and left out: give it by itself to read it",
            f"{os.path.relpath(root, path)}, which is a results folder of its own",
            frozenset(below),
        )
        for root, below in tasks.items()
    ]


def _moved(strays: Mapping[Path, Manifest], placed: Collection[Path], root: Path | None) -> list[LeftOut]:
    """One entry for each folder that was moved or copied, as high up as everything below it was.

    Args:
        strays: cells that do not lie where they were written.
        placed: cells that do.
        root: the results folder; None if there is no cell in place.
    """
    with_cells = {parent for folder in placed for parent in folder.parents}
    written: dict[Path, set[tuple[str, ...]]] = {}
    for folder, manifest in strays.items():
        for depth, unit in enumerate((folder.parent.parent, folder.parent, folder), 1):
            written.setdefault(unit, set()).add(_parts(manifest)[:depth])
    found: dict[Path, tuple[Path, Path, set[tuple[str, str]]]] = {}
    for folder, manifest in strays.items():
        base = root or _root(folder)
        for depth, unit in enumerate((folder.parent.parent, folder.parent, folder), 1):
            place = base.joinpath(*_parts(manifest)[:depth])
            whole = unit not in with_cells and len(written[unit]) == 1 and unit != place and base in unit.parents
            if whole or unit == folder:
                found.setdefault(unit, (base, place, set()))[2].add(_parts(manifest)[:2])
                break
    return [_misplaced(unit, *about) for unit, about in found.items()]


def _misplaced(unit: Path, base: Path, place: Path, tasks: set[tuple[str, str]]) -> LeftOut:
    below = place.relative_to(base)
    remedy = (
        f"to read it, move it to {below} in another results folder" if place.exists() else f"move it back to {place}"
    )
    return LeftOut(
        unit,
        f"{unit} was written as {place}, moved or copied since, and is not read: {remedy}",
        f"{os.path.relpath(unit, base)}, which was written as {below}",
        frozenset(tasks),
    )
