"""``kvgauge show``: one method, model, task, … with its knobs, their defaults and sources; or one prompt of a run."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli.commands import add_own_paths
from harness.config.catalog import GROUPS, ROOT, SEVERAL, Choice, choice, choices
from harness.config.outside import used
from harness.errors import ConfigError

HELP = "Show a method, storage, model, task, … with all knobs and their sources; or one prompt of a run."
_PROMPT = "prompt"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``show GROUP NAME`` and ``show prompt SETTING… [--example ID]``, with folders of the user's own."""
    parser.add_argument("group", help=", ".join((*GROUPS, _PROMPT)))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"its value, as kvgauge list shows it; of {_PROMPT} the settings of a run: task=needle model=tiny",
    )
    parser.add_argument("--example", metavar="ID", help=f"of {_PROMPT}: the example's id (default: the first one)")
    add_own_paths(parser, "method", "task")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print the module's docstring, the YAML file and, of a method, the other presets of its paper beside it.

    Raises:
        ConfigError: the group has no such name.
        KvgaugeError: of ``show prompt``: a setting, the data or the tokenizer cannot be used.
    """
    if arguments.group == _PROMPT:
        from harness.cli.one_prompt import print_prompt  # here, because it needs Hydra and transformers

        print_prompt(arguments.names, arguments.example, console)
        return
    group, name = arguments.group, " ".join(arguments.names)
    if group not in GROUPS:
        owners = [one for one in GROUPS if group in {choice.name for choice in choices(one, used())}]
        near = owners or difflib.get_close_matches(group, (*GROUPS, _PROMPT), 1)
        raise ConfigError(
            f"kvgauge show got {group} in place of {', '.join((*GROUPS, _PROMPT))}: "
            + (f"use kvgauge show {near[0]} {group if owners else name or 'NAME'}" if near else "give one, then a name")
        )
    chosen = choice(group, name, used())
    if chosen.module_doc:
        console.print(chosen.module_doc, markup=False, soft_wrap=True)
        console.print()
    knobs = f"{chosen.group}.{chosen.name}.<knob>" if chosen.group in SEVERAL else f"{chosen.group}.<knob>"
    file = chosen.path.relative_to(ROOT) if chosen.path.is_relative_to(ROOT / "conf") else chosen.path
    console.print(f"{file}; on the command line {knobs}=…", style="bold", markup=False, soft_wrap=True)
    console.print(chosen.text.rstrip(), markup=False, soft_wrap=True)
    _, _, number = chosen.paper.rpartition("arXiv:")
    others = [other for other in choices(group, used()) if other.paper.endswith(number) and other.name != name]
    if number and others:
        _print_readings([chosen, *others], f"arXiv:{number}", console)


def _print_readings(readings: Sequence[Choice], paper: str, console: Console) -> None:
    """Print the presets of one paper beside each other: their knobs, and what each says that differs."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    for reading in readings:
        table.add_column(reading.name)
    for knob in dict.fromkeys(knob for reading in readings for knob in reading.knobs):
        table.add_row(*map(Text, [knob, *(reading.knobs.get(knob, "") for reading in readings)]))
    console.print()
    console.print(f"readings of {paper}", style="bold", markup=False)
    console.print(table)
    for reading in readings[1:]:
        _, begins, differs = reading.module_doc.partition("\nDiffers:")
        console.print()
        console.print(f"{reading.name}: {reading.about}", markup=False, soft_wrap=True)
        if begins:
            console.print(f"Differs:{differs.rstrip()}", markup=False, soft_wrap=True)
