"""What there is to choose from: the YAML files of ``conf``, read as they lie, without building anything."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import OmegaConf

from harness.errors import ConfigError

RUN_GROUPS = ("model", "method", "task", "tracker")
SETTINGS = ("budget", "selection", "limit", "seed", "shards", "shard", "retry_errors", "results_dir", "dry_run", "engine", *RUN_GROUPS)

ROOT = Path(__file__).resolve().parents[1]
GROUPS: Mapping[str, str] = {
    "method": "methods",
    "model": "models",
    "task": "tasks",
    "experiment": "experiments",
    "tracker": "trackers",
}


@dataclass(frozen=True)
class Choice:
    """One file of a group.

    Attributes:
        group: ``method``, ``model``, ``task``, ``experiment`` or ``tracker``.
        name: the file's stem, its value on the command line.
        text: the file, with its comments.
        target: what its ``_target_`` names; "" where it inherits or combines others.
    """

    group: str
    name: str
    text: str
    target: str

    @property
    def about(self) -> str:
        """The first comment, up to its first sentence's end."""
        lines = []
        for line in self.text.splitlines():
            if line.startswith("#") and not line.startswith("# @package"):
                lines.append(line.lstrip("# ").strip())
            elif lines:
                break
        first, found, _ = " ".join(lines).partition(". ")
        return first + "." * bool(found)

    @property
    def module_doc(self) -> str:
        """The docstring of the module that the target lies in: claim, source, differences; "" without a target."""
        module, _, _ = self.target.rpartition(".")
        path = ROOT / f"{module.replace('.', '/')}.py"
        return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "") if module and path.is_file() else ""


def choices(group: str) -> list[Choice]:
    """All files of a group, by name."""
    return [_read(group, path) for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]


def choice(group: str, name: str) -> Choice:
    """One file of a group.

    Raises:
        ConfigError: there is none of this name.
    """
    names = [path.stem for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        raise ConfigError(f"{group}={name} is not there: {f'did you mean {near[0]}?' if near else 'use ' + ', '.join(names)}")
    return _read(group, ROOT / "conf" / group / f"{name}.yaml")


def _read(group: str, path: Path) -> Choice:
    text = path.read_text("utf-8")
    values = OmegaConf.to_container(OmegaConf.create(text))
    return Choice(group, path.stem, text, values.get("_target_", "") if isinstance(values, dict) else "")
