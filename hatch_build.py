"""The build hook of the wheel, which moves the clone's folders into ``kvgauge`` and rewrites their imports.

A clone has ``harness``, ``methods`` and ``tasks`` as top-level packages. An installed wheel must not, because these may
be names of a user's own packages. So ``from harness.task import Task`` becomes ``from kvgauge.harness.task import
Task`` in the wheel, just as pip rewrites the libraries that it vendors. Names that are data, such as a ``_target_`` in
YAML, stay as they are; ``harness/config/names.py`` translates them.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_IMPORT = re.compile(r"^(\s*)(from|import) (?=(?:harness|methods|tasks)[.\s])", re.MULTILINE)
_BINDS_THE_TOP = re.compile(r"^\s*import (?:harness|methods|tasks)(?!\S* as )", re.MULTILINE)


class Vendored(BuildHookInterface):  # type: ignore[type-arg]
    """Rewrites the imports in the Python files of the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Include rewritten copies in place of the files that import one of the folders.

        Nothing is rewritten for an editable installation of a clone.
        """
        if version == "editable":
            return
        self._copies = TemporaryDirectory()
        for file in self.build_config.builder.recurse_included_files():
            if file.path.endswith((".py", ".pyi")) and (text := vendored(Path(file.path))) is not None:
                copy = Path(self._copies.name, file.distribution_path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(text, encoding="utf-8", newline="\n")
                build_data["force_include"][str(copy)] = file.distribution_path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Delete the copies."""
        if version != "editable":
            self._copies.cleanup()


def vendored(path: Path) -> str | None:
    """The text of a module for the wheel; None if it stays as it is.

    Raises:
        ValueError: the module says ``import harness.task``, which binds the name ``harness``, instead of ``from
            harness.task import …``.
    """
    text = path.read_text(encoding="utf-8")
    if wrong := _BINDS_THE_TOP.search(text):
        raise ValueError(f"{path}: {wrong[0].strip()} binds a name that a wheel has not: say from … import …")
    changed = _IMPORT.sub(r"\1\2 kvgauge.", text)
    return changed if changed != text else None
