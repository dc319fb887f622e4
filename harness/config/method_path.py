"""Methods outside the clone: ``method_path=<folder>``, with ``<folder>/method/mine.yaml`` and ``<folder>/mine.py``.

A folder is used, and no entry point, because it needs no package to be built and installed, the nodes of a cluster see
it on a shared disk, and the command shows where the code came from. It must be given explicitly, because its code runs.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.config.catalog import ROOT
from harness.config.names import recorded
from harness.errors import ConfigError

_SETTING = "method_path="
_SCHEME = "file://"


def search_path_words(words: Sequence[str]) -> list[str]:
    """The words of a run's command line, with ``method_path=`` replaced by Hydra's setting for its search path.

    Raises:
        ConfigError: a folder contains no methods, or one whose name is taken.
    """
    given = [word for word in words if word.startswith(_SETTING)]
    if not given:
        return list(words)
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = given[-1].removeprefix(_SETTING)
    if value[:1] in ("[", "'", '"'):
        value = OverridesParser.create().parse_overrides([given[-1]])[0].value()
    folders = method_folders(map(str, value if isinstance(value, list) else [value]))
    addresses = ",".join("'" + f"{_SCHEME}{folder}".replace("'", "\\'") + "'" for folder in folders)
    return [*(word for word in words if word not in given), f"hydra.searchpath=[{addresses}]"]


def method_folders(given: Iterable[str | Path]) -> list[Path]:
    """Absolute paths of folders with methods, after checking them.

    Raises:
        ConfigError: as ``search_path_words``.
    """
    folders = [Path(folder).expanduser().resolve() for folder in given]
    taken = {path.stem: path for path in (ROOT / "conf/method").glob("*.yaml")}
    for folder in folders:
        files = sorted(folder.glob("method/*.yaml"))
        if not files:
            raise ConfigError(
                f"{_SETTING}{folder} holds no method/*.yaml: give a folder of methods, as kvgauge new method <name> "
                "--method-path <folder> writes it"
            )
        for path in files:
            if other := taken.get(path.stem):
                raise ConfigError(
                    f"method {path.stem} is there twice, {other} and {path}: give one of them another name"
                )
            taken[path.stem] = path
    return folders


def import_from(search_path: Iterable[str | Path]) -> None:
    """Make the modules of some folders importable, after all others, so that they hide no other module.

    Args:
        search_path: folders, as paths or as Hydra's ``file://`` addresses.
    """
    for address in search_path:
        folder = str(address).removeprefix(_SCHEME)
        if folder not in sys.path and Path(folder).is_dir():
            sys.path.append(folder)


def source_of(method: type) -> dict[str, str]:
    """The hash of a method's source, which identifies cells of methods from outside the project.

    Returns:
        ``source_sha256`` of the module's file or of all files of its package; empty for the project's own methods,
        which a manifest identifies by the commit.
    """
    if recorded(method).startswith("methods."):
        return {}
    name, _, _ = method.__module__.partition(".")
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
