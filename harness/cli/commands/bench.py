"""``kvgauge bench``: measurements of a grid's time, each method's cost and memory, with your model on your machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from harness.bench import PARTS
from harness.errors import ConfigError
from harness.store.files import failed

HELP = (
    "Measure what a grid, each method by itself and memory cost, with your model on this machine; prompts are random."
)
_DEFAULTS = ("budget=[64,128,256,512,1024]",)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the settings of a run, and options for what is measured."""
    parser.add_argument(
        "settings", nargs="*", metavar="knob=value", help="model, method, budget and selection, as for a run"
    )
    parser.add_argument(
        "--tokens", type=int, nargs="+", default=[1024, 4096], help="lengths of the prompts (default: 1024 4096)"
    )
    parser.add_argument("--new-tokens", type=int, default=64, help="decoded per row, 2 or more (default: 64)")
    parser.add_argument("--prompts", type=int, default=1, help="decoded together (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over them (default: 3)")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="what to measure (default: all); methods has peaks beside memory alone",
    )
    parser.add_argument(
        "--to", type=Path, default=Path("results/bench"), help="where the files go (default: results/bench/<model>)"
    )


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Measure, and write and print the files.

    Raises:
        ConfigError: a setting cannot be used.
        KvgaugeError: the errors of a run.
    """
    for knob, least in (("new_tokens", 2), ("prompts", 1), ("rounds", 1)):
        if getattr(arguments, knob) < least:
            raise ConfigError(f"--{knob.replace('_', '-')} {getattr(arguments, knob)} is not {least} or more")
    if min(arguments.tokens) < 1:
        raise ConfigError(f"--tokens {min(arguments.tokens)} is not 1 or more: give lengths of prompts")
    from harness.bench.parts import measure  # here, because torch and transformers take their time
    from harness.bench.setup import subject_of

    subject = subject_of([*_DEFAULTS, *arguments.settings], arguments.new_tokens)
    if all(variant.method.scorer is not None for variant in subject.variants):
        raise ConfigError("nothing to hold methods against: let method= name fullkv, too")

    folder = arguments.to.expanduser() / subject.name
    try:
        folder.mkdir(parents=True, exist_ok=True)  # before hours are spent on measurements that could not be written
    except OSError as error:
        raise failed(folder, "written", error) from error

    def tell(path: Path) -> None:
        console.print(str(path), markup=False, soft_wrap=True)
        if path.suffix == ".md":
            console.print(path.read_text(encoding="utf-8"), markup=False, soft_wrap=True)

    measure(subject, arguments.parts, arguments.tokens, arguments.prompts, arguments.rounds, folder, tell)
