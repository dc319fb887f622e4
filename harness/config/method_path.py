"""Methods that lie outside the clone: ``method_path=<folder>``, with ``<folder>/method/mine.yaml`` and ``<folder>/mine.py``.

A folder and not an entry point: it needs no package to be built and installed, a cluster's nodes see it on the shared
disk, and the command says where the code came from. It is asked for in words, as it is code that runs.
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
    """A run's words with ``method_path=`` as the setting by which Hydra finds YAML files elsewhere.

    Raises:
        ConfigError: a folder that holds no methods, or one under a name that there is already.
    """
    given = [word for word in words if word.startswith(_SETTING)]
    if not given:
        return list(words)
    from hydra.core.override_parser.overrides_parser import OverridesParser

    value = given[-1].removeprefix(_SETTING)
    listed = OverridesParser.create().parse_override(given[-1]).value() if value.startswith("[") else [value]
    assert isinstance(listed, list)
    folders = method_folders(map(str, listed))
    places = ",".join("'" + f"{_SCHEME}{folder}".replace("'", "\\'") + "'" for folder in folders)
    return [*(word for word in words if word not in given), f"hydra.searchpath=[{places}]"]


def method_folders(given: Iterable[str | Path]) -> list[Path]:
    """Folders with methods, checked, as absolute paths.

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
    """Let the modules of these folders be imported. They stand last, so that none takes the place of another module.

    Args:
        search_path: folders, or Hydra's addresses of them.
    """
    for address in search_path:
        folder = str(address).removeprefix(_SCHEME)
        if folder not in sys.path and Path(folder).is_dir():
            sys.path.append(folder)


def source_of(method: type) -> dict[str, str]:
    """What a cell of a method from outside is also known by: ``source_sha256``, of its module's file or of all of its package's.

    Nothing of the project's own methods, which a manifest knows by their commit.
    """
    if recorded(method).startswith("methods."):
        return {}
    name, _, _ = method.__module__.partition(".")
    module = sys.modules.get(name)
    # A package has folders, several perhaps where it has no __init__.py; any other module has a file.
    folders, file = [Path(folder) for folder in getattr(module, "__path__", ())], getattr(module, "__file__", None)
    if folders:
        return {"source_sha256": files_sha256((folder, path) for folder in folders for path in folder.rglob("*.py"))}
    return {"source_sha256": files_sha256([(Path(file).parent, Path(file))])} if file else {}


def files_sha256(files: Iterable[tuple[Path, Path]]) -> str:
    """Hash of (root, file) by the files' paths below their roots and their bytes."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(root), path) for root, path in files):
        content = path.read_bytes()
        digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()
