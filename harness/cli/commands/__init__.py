"""The commands, such as ``kvgauge report results``; any other command line is a run.

Each module is one command, with ``HELP``, ``arguments(parser)`` and ``run(arguments, console)``.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from harness.config.outside import GROUPS as OWN_GROUPS
from harness.config.outside import own_folders, use
from harness.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


class Command(Protocol):
    """The interface of a module in this package."""

    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        ...

    def run(self, arguments: argparse.Namespace, console: Console) -> None:
        """Run the command.

        Raises:
            KvgaugeError: the command fails.
        """
        ...


# Modules are imported when their command is called, so that no command waits for the imports of another.
COMMANDS: Mapping[str, str] = {
    "list": "lists",
    "show": "show",
    "doctor": "doctor",
    "new": "new",
    "bench": "bench",
    "status": "status",
    "report": "report",
    "leaderboard": "leaderboard",
    "compare": "compare",
    "score": "score",
    "verify": "verify",
    "data": "data",
    "import": "import_",
    "wandb": "wandb",
    "lm_eval": "lm_eval",
    "completion": "completion",
}


def add_own_paths(parser: argparse.ArgumentParser, *groups: str) -> None:
    """Declare the folders of the user's own methods or tasks, which ``command_line`` makes known.

    Args:
        parser: the command's parser.
        groups: ``method``, ``task`` or both.
    """
    for group in groups:
        parser.add_argument(
            f"--{group}-path",
            dest=f"own_{group}s",
            action="append",
            default=[],
            metavar="FOLDER",
            help=f"a folder with {group}s of your own",
        )


def add_results_path(parser: argparse.ArgumentParser) -> None:
    """Declare the results folder that a command reads, ``results`` if none is given, and ``--task-path``."""
    add_own_paths(parser, "task")
    parser.add_argument(
        "path",
        nargs="?",
        type=Path,
        default=Path("results"),
        help="a results folder, a model's, or a task's (default: results)",
    )


class _Parser(argparse.ArgumentParser):
    """Raises errors that argparse would print below a usage text."""

    def error(self, message: str) -> NoReturn:
        if match := re.fullmatch(r"argument \S+: invalid choice: '(.*)' \(choose from (.*)\)", message):
            given, known = match[1], re.findall(r"[\w-]+", match[2])
            near = difflib.get_close_matches(given, known, 1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}"
            raise ConfigError(f"{self.prog} does not take {given}: {remedy}")
        raise ConfigError(f"{self.prog}: {message}: {self.prog} --help shows what it takes")


def command_line(words: Sequence[str]) -> None:
    """Run the command that the first word names.

    Args:
        words: the words of the command line, without the program's name.

    Raises:
        ConfigError: there is no such command.
        KvgaugeError: the command fails.
    """
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1) or COMMANDS
        raise ConfigError(f"{words[0]} is no command: use {', '.join(near)}; settings of a run are written knob=value")
    from rich.console import Console  # here, because completion imports this module only for the commands' names

    command = cast(Command, import_module(f"{__name__}.{COMMANDS[words[0]]}"))
    parser = _Parser(prog=f"kvgauge {words[0]}", description=command.HELP)
    command.arguments(parser)
    given = parser.parse_args(words[1:])
    for group in OWN_GROUPS:
        use(own_folders(group, getattr(given, f"own_{group}s", ())))
    command.run(given, Console(highlight=False))
