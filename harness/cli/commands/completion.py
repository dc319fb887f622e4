"""``kvgauge completion``: the script by which a shell completes commands, settings and their values."""

from __future__ import annotations

import argparse

from rich.console import Console

from harness.cli.words import SCRIPTS, candidates
from harness.errors import ConfigError

HELP = "Print the script that lets a shell complete kvgauge: source <(kvgauge completion bash)."


def arguments(parser: argparse.ArgumentParser) -> None:
    """``completion SHELL``."""
    parser.add_argument("shell", nargs="?", choices=[*SCRIPTS], help="whose script to print")
    parser.add_argument("--words", metavar="LINE", help="what such a script asks for: the words that can end this line")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print a script, or what the script asked for.

    Raises:
        ConfigError: there is neither.
    """
    if arguments.words is not None:
        print("\n".join(candidates(arguments.words)))
    elif arguments.shell is not None:
        print(SCRIPTS[arguments.shell].strip())
    else:
        raise ConfigError(f"kvgauge completion got no shell: give one of {', '.join(SCRIPTS)}")
