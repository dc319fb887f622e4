"""Methods and tasks outside the clone: ``method_path=<folder>`` and ``task_path=<folder>``.

Such a folder holds ``method/mine.yaml`` or ``task/mine.yaml``, and ``mine.py``; one can hold both. A folder is used,
and no entry point, because it needs no package to be built and installed, the nodes of a cluster see it on a shared
disk, and the command shows where the code came from. It must be given explicitly, because its code runs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.config.catalog import ROOT
from harness.config.names import is_own, recorded
from harness.errors import ConfigError

GROUPS = ("method", "task")
"""The groups that can have files outside the clone."""
_SCHEME = "file://"
_used: list[Path] = []


def search_path_words(words: Sequence[str]) -> list[str]:
    """A run's command line, with ``method_path=`` and ``task_path=`` as Hydra's setting for its search path.

    Raises:
        ConfigError: a folder contains no methods or tasks, or one whose name is taken.
    """
    folders = folders_of_words(words)
    if not folders:
        return list(words)
    addresses = ",".join("'" + f"{_SCHEME}{folder}".replace("'", "\\'") + "'" for folder in folders)
    others = [word for word in words if not word.startswith(tuple(f"{group}_path=" for group in GROUPS))]
    return [*others, f"hydra.searchpath=[{addresses}]"]


def folders_of_words(words: Sequence[str]) -> list[Path]:
    """The folders that ``method_path=`` and ``task_path=`` on a run's command line name.

    Raises:
        ConfigError: as ``search_path_words``.
    """
    folders: dict[Path, None] = {}
    for group in GROUPS:
        if given := [word for word in words if word.startswith(f"{group}_path=")]:
            folders |= dict.fromkeys(own_folders(group, _listed(given[-1])))
    return list(folders)


def own_folders(group: str, given: Iterable[str | Path]) -> list[Path]:
    """Absolute paths of folders with methods or tasks, after checking them.

    Args:
        group: one of ``GROUPS``.
        given: the folders.

    Raises:
        ConfigError: as ``search_path_words``.
    """
    folders = [Path(folder).expanduser().resolve() for folder in given]
    taken = {path.stem: path for path in (ROOT / "conf" / group).glob("*.yaml")}
    for folder in folders:
        files = sorted(folder.glob(f"{group}/*.yaml"))
        if not files:
            remedy = {
                "method": "as kvgauge new method <name> --method-path <folder> writes it",
                "task": "with <folder>/task/<name>.yaml and the module that its _target_ names",
            }[group]
            raise ConfigError(f"{group}_path={folder} holds no {group}/*.yaml: give a folder of {group}s, {remedy}")
        for path in files:
            if other := taken.get(path.stem):
                raise ConfigError(
                    f"{group} {path.stem} is there twice, {other} and {path}: give one of them another name"
                )
            taken[path.stem] = path
    return folders


def use(search_path: Iterable[str | Path]) -> None:
    """Make the modules of some folders importable, after all others, so that they hide no other module.

    Args:
        search_path: folders, as paths or as Hydra's ``file://`` addresses.
    """
    for address in search_path:
        folder = str(address).removeprefix(_SCHEME)
        if Path(folder).is_dir():
            if folder not in sys.path:
                sys.path.append(folder)
            if Path(folder) not in _used:
                _used.append(Path(folder))


def used() -> Sequence[Path]:
    """The folders that ``use`` was given in this process."""
    return [folder for folder in _used if str(folder) in sys.path]


def _listed(word: str) -> list[str]:
    """The folders that a word names: one, or a list of them."""
    value = word.partition("=")[2]
    if value[:1] not in ("[", "'", '"'):
        return [value]
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([word])[0].value()
    return [str(folder) for folder in (parsed if isinstance(parsed, list) else [parsed])]


def source_of(kind: type) -> dict[str, str]:
    """The hash of the source of a method's or a task's class; cells of code from outside the project are known by it.

    Returns:
        ``source_sha256`` of the module's file or of all files of its package; empty for the project's own classes,
        which a manifest identifies by the commit.
    """
    if is_own(recorded(kind)):
        return {}
    name, _, _ = kind.__module__.partition(".")
    module = sys.modules.get(name)
    # A package has folders, several if it is a namespace package; any other module has a file.
    folders, file = [Path(folder) for folder in getattr(module, "__path__", ())], getattr(module, "__file__", None)
    if folders:
        return {"source_sha256": files_sha256((folder, path) for folder in folders for path in folder.rglob("*.py"))}
    return {"source_sha256": files_sha256([(Path(file).parent, Path(file))])} if file else {}


def files_sha256(files: Iterable[tuple[Path, Path]]) -> str:
    """Hash of files by their contents and their paths relative to their roots.

    Args:
        files: pairs of a root and a file below it.
    """
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root), path) for root, path in files):
        content = path.read_bytes()
        digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
