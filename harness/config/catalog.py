"""The catalog of methods, storages, models, tasks and so on: YAML files of ``conf``, read as plain text."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError

SEVERAL = ("method", "storage")
"""Groups of which a run can name several, whose knobs stand below their names: ``method.snapkv.window``."""
RUN_GROUPS = ("model", "method", "storage", "task", "tracker")
SETTINGS = (
    "budget",
    "selection",
    "sampling",
    "limit",
    "seed",
    "shards",
    "shard",
    "retry_errors",
    "save_prompts",
    "results_dir",
    "wide",
    "dry_run",
    "engine",
    *RUN_GROUPS,
)

ROOT = Path(__file__).resolve().parents[2]
GROUPS: Mapping[str, str] = {
    "method": "methods",
    "storage": "storages",
    "model": "models",
    "task": "tasks",
    "experiment": "experiments",
    "tracker": "trackers",
}


@dataclass(frozen=True)
class Choice:
    """One YAML file of a group.

    Attributes:
        group: ``method``, ``storage``, ``model``, ``task``, ``experiment`` or ``tracker``.
        name: stem of the file, which is its name on the command line.
        text: contents of the file, comments included.
        target: the class that its ``_target_`` names; "" if it inherits or combines other files.
        path: path of the file.
    """

    group: str
    name: str
    text: str
    target: str
    path: Path

    @property
    def about(self) -> str:
        """The first sentence of the first comment."""
        lines = []
        for line in self.text.splitlines():
            if line.startswith("#") and not line.startswith(("# @package", "# needs: ")):
                lines.append(line.lstrip("# ").strip())
            elif lines:
                break
        first, stop, _ = " ".join(lines).partition(". ")
        return first + "." * bool(stop)

    @property
    def needs(self) -> str:
        """What a method looks at, by the line ``# needs:`` of its file: ``keys values``; "" if it does not say."""
        said = re.search(r"^# needs: (.+)$", self.text, re.MULTILINE)
        return said[1].strip() if said else ""

    @property
    def paper(self) -> str:
        """Authors and arXiv number of the first paper in the first comment: ``Li et al., arXiv:2404.14469``; or ""."""
        head, _, _ = self.text.partition("_target_")
        named = re.search(r"(?:([^\W\d_][^\s,(]*(?: et al\.| & [^\s,]+)?), )?(arXiv:\d{4}\.\d{5})", head)
        return ", ".join(filter(None, named.groups())) if named else ""

    @property
    def year(self) -> str:
        """Year of the paper, which its arXiv number begins with; "" if there is none."""
        return f"20{self.paper.rpartition(':')[2][:2]}" if self.paper else ""

    @property
    def knobs(self) -> Mapping[str, str]:
        """Values of the file's settings as they are written there, but for ``_target_`` and ``label``."""
        settings = re.findall(r"^(\w+): *(.*)$", self.text, re.MULTILINE)
        return {name: value for name, value in settings if name not in ("_target_", "label", "defaults")}

    @property
    def module_doc(self) -> str:
        """The docstring of the target's module, with claim, source and differences; "" if there is no target."""
        module, _, _ = self.target.rpartition(".")
        for root in (ROOT, self.path.parents[1]):
            for path in (root / f"{module.replace('.', '/')}.py", root / module / "__init__.py"):
                if module and path.is_file():
                    return ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        return ""


def choices(group: str, elsewhere: Sequence[Path] = ()) -> list[Choice]:
    """All files of a group, sorted by name.

    Args:
        group: a key of ``GROUPS``.
        elsewhere: folders of the user's own methods, whose files are included.
    """
    return [_read(group, path) for path in _files(group, elsewhere)]


def choice(group: str, name: str, elsewhere: Sequence[Path] = (), setting: str = "") -> Choice:
    """One file of a group.

    Args:
        group: a key of ``GROUPS``.
        name: stem of the file.
        elsewhere: folders of the user's own methods, whose files are included.
        setting: the setting that names the file, for errors; the group's if empty.

    Raises:
        ConfigError: there is no file of this name.
    """
    files = {path.stem: path for path in _files(group, elsewhere)}
    if name not in files:
        near = difflib.get_close_matches(name, files, 1) if name else []
        remedy = f"did you mean {near[0]}?" if near else "use " + ", ".join(files)
        raise ConfigError(f"{setting or group}={name} is not there: {remedy}")
    return _read(group, files[name])


def _files(group: str, elsewhere: Sequence[Path]) -> list[Path]:
    folders = [ROOT / "conf" / group, *(folder / group for folder in elsewhere)]
    return sorted((path for folder in folders for path in folder.glob("*.yaml")), key=lambda path: path.stem)


def _read(group: str, path: Path) -> Choice:
    text = path.read_text("utf-8")
    target = re.search(r"^_target_: (\S+)$", text, re.MULTILINE)
    return Choice(group, path.stem, text, target[1] if target else "", path)
