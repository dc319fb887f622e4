"""``kvgauge show``: one method, model, task, … with its knobs, their defaults and their sources."""

from __future__ import annotations

import argparse

from rich.console import Console

from harness.config.catalog import GROUPS, ROOT, choice
from harness.config.method_path import method_folders

HELP = "Show all knobs of a method, model, task, experiment or tracker, with their sources."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``show GROUP NAME [--method-path FOLDER]``."""
    parser.add_argument("group", choices=[*GROUPS], help="which axis")
    parser.add_argument("name", help="its value, as kvgauge list shows it")
    parser.add_argument(
        "--method-path", action="append", default=[], metavar="FOLDER", help="a folder with methods of your own"
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print the module's docstring and the YAML file.

    Raises:
        ConfigError: the group has no such name, or a folder contains no methods.
    """
    chosen = choice(arguments.group, arguments.name, method_folders(arguments.method_path))
    if chosen.module_doc:
        console.print(chosen.module_doc, markup=False, soft_wrap=True)
        console.print()
    knobs = f"{chosen.group}.{chosen.name}.<knob>" if chosen.group == "method" else f"{chosen.group}.<knob>"
    file = chosen.path.relative_to(ROOT) if chosen.path.is_relative_to(ROOT / "conf") else chosen.path
    console.print(f"{file}; on the command line {knobs}=…", style="bold", markup=False, soft_wrap=True)
    console.print(chosen.text.rstrip(), markup=False, soft_wrap=True)
