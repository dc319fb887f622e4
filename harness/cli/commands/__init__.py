"""Commands beside a run: ``kvgauge report results`` and its like. Everything else on the command line is a run.

Each module has one command: ``HELP``, ``arguments(parser)`` and ``run(arguments, console)``.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from harness.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console


class Command(Protocol):
    """What a module of this package has."""

    HELP: str

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        ...

    def run(self, arguments: argparse.Namespace, console: Console) -> None:
        """Do it.

        Raises:
            KvgaugeError: it cannot be done.
        """
        ...


# Imported when they are called: no command waits for what another one needs.
COMMANDS: Mapping[str, str] = {
    "list": "lists",
    "show": "show",
    "doctor": "doctor",
    "new": "new",
    "bench": "bench",
    "status": "status",
    "report": "report",
    "compare": "compare",
    "score": "score",
    "verify": "verify",
    "data": "data",
    "import": "import_",
    "wandb": "wandb",
    "completion": "completion",
}


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print with its usage above."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}: {self.prog} --help shows what it takes")


def command_line(words: Sequence[str]) -> None:
    """Run the command that the first word names.

    Raises:
        ConfigError: there is none of this name.
        KvgaugeError: as the command.
    """
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1) or COMMANDS
        raise ConfigError(f"{words[0]} is no command: use {', '.join(near)}; settings of a run are written knob=value")
    from rich.console import Console  # not above: completion needs the names of the commands alone

    command = cast(Command, import_module(f"{__name__}.{COMMANDS[words[0]]}"))
    parser = _Parser(prog=f"kvgauge {words[0]}", description=command.HELP)
    command.arguments(parser)
    command.run(parser.parse_args(words[1:]), Console(highlight=False))
