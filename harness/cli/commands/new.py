"""``kvgauge new method NAME`` and ``kvgauge new task FILE``: files that work as they are and are meant to be edited."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import shlex
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console

from harness import cli
from harness.cli.new_task import new_task, write
from harness.config.catalog import choices
from harness.errors import ConfigError

HELP = "Write the files of a new method, which pass their test as they are, or the preset of a file of your own data."
_WINDOW = 8  # as in most published tables
_KINDS = {
    "scorer": "which entries survive (the default)",
    "allocation": "how many entries each head keeps, by SnapKV's scores",
    "wrapper": "what to do with another method's scores",
}
"""What a method may be about; each has its templates."""
_FILES = ("methods/{name}.py", "conf/method/{name}.yaml", "tests/methods/test_{name}.py")
_OUTSIDE = ("{name}.py", "method/{name}.yaml", "test_{name}.py")
_TEMPLATES = ("{kind}.py.j2", "{kind}.yaml.j2", "test_{kind}.py.j2")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``new method NAME [--kind KIND] [--to CLONE | --method-path FOLDER]`` and ``new task FILE …``."""
    parser.add_argument("what", choices=["method", "task"], help="what to write")
    parser.add_argument(
        "name",
        help="of a method its name on the command line and in tables, small letters, digits and _; of a task the file "
        "of JSON lines that it is to ask",
    )
    kinds = "; ".join(f"{kind}: {about}" for kind, about in _KINDS.items())
    parser.add_argument("--kind", choices=[*_KINDS], default="scorer", help=f"what it is about. {kinds}")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--to", metavar="CLONE", type=Path, default=Path(), help="the clone to write into (default: this folder)"
    )
    where.add_argument("--method-path", metavar="FOLDER", type=Path, help="a folder of your own to write into instead")
    where.add_argument("--task-path", metavar="FOLDER", type=Path, help="the same, of a task")
    parser.add_argument("--name", dest="label", help="of a task: its name on the command line, if not the file's")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Write the files, and print commands that use them.

    Raises:
        ConfigError: the name cannot be used, or is taken.
        DataError: of a task: the file cannot be read or understood.
        StoreError: a file cannot be written.
    """
    if arguments.what == "task":
        new_task(Path(arguments.name), arguments.label, arguments.to, arguments.task_path, console)
        return
    name, outside = arguments.name, arguments.method_path is not None
    root = (arguments.method_path if outside else arguments.to).expanduser()
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", name) or keyword.iskeyword(name):
        raise ConfigError(
            f"{name!r} cannot name a method: use a small letter, then small letters, digits and _, at most 40"
        )
    if not outside and not (root / "conf/method").is_dir():
        raise ConfigError(f"{root} is no clone of kvgauge (it has no conf/method): go there, or give it with --to")
    if name in {choice.name for choice in choices("method")}:
        raise ConfigError(f"method {name} is there already: kvgauge show method {name} prints it; use another name")
    if outside and importlib.util.find_spec(name) is not None and not (root / f"{name}.py").exists():
        raise ConfigError(f"{name} is the name of a module that Python has already: use another name")
    files = {
        root / path.format(name=name): template.format(kind=arguments.kind)
        for path, template in zip(_OUTSIDE if outside else _FILES, _TEMPLATES, strict=True)
    }
    for path in files:
        if path.exists():
            raise ConfigError(f"{path} is there already: use another name, or move it away")
    templates = Environment(
        loader=PackageLoader(cli.__name__),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,
    )
    title = "".join(part.capitalize() for part in name.split("_"))
    for path, template in files.items():
        text = templates.get_template(template).render(
            name=name, module=name if outside else f"methods.{name}", outside=outside, title=title, window=_WINDOW
        )
        write(path, text, console)
    path, tests = "", f"tests/methods -k {name}"
    if outside:
        path, tests = f"{shlex.quote(f'method_path={root}')} ", shlex.quote(f"{root}/test_{name}.py")
    console.print(f"python run.py {path}method=[fullkv,{name}] budget=64", markup=False, soft_wrap=True)
    console.print(f"python -m pytest {tests}  # make develop installs pytest", markup=False, soft_wrap=True)
    if outside:
        console.print(
            f"KVGAUGE_METHOD_PATH={shlex.quote(str(root))} python -m pytest tests/methods -k {name}",
            markup=False,
            soft_wrap=True,
        )
