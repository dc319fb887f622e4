"""``kvgauge verify``: checks whether a results folder was made as its manifests say."""

from __future__ import annotations

import argparse

from rich.console import Console

from harness.cli.commands import add_own_paths, add_results_path
from harness.errors import ConfigError

HELP = (
    "Tell whether a results folder was made as it says: scores, summaries and kept entries from records; settings "
    "and prompts from the model's files and the task's data; with --sample, records from the model."
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare a results folder or a part of one, the size of the sample, and where the model is."""
    add_results_path(parser)
    parser.add_argument(
        "--sample",
        type=int,
        default=0,
        metavar="N",
        help="prefill and decode N examples of each task again (default: 0)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        help="where the model is, as in a run: model=hf, model.path=<folder>, engine.exact=true (default: the preset "
        "of the model's name); task.KNOB=VALUE where later runs asked for more examples",
    )
    add_own_paths(parser, "method")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Check a results folder; see ``verification.verify``.

    Raises:
        KvgaugeError: a cell is not what it says, or what was asked for cannot be read.
    """
    if arguments.sample < 0:
        raise ConfigError(f"--sample {arguments.sample} is below 0: give a number of examples")
    from harness.cli.verification import verify  # here, because torch and transformers take their time

    verify(arguments.path, arguments.set, arguments.sample, console)
