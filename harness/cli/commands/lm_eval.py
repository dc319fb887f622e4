"""``kvgauge lm_eval``: lm-evaluation-harness's tasks through compressed caches, by its own command line."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from rich.console import Console

from harness.errors import ConfigError

HELP = "Run lm-evaluation-harness's tasks through compressed caches; what follows is its own command line."


def arguments(parser: argparse.ArgumentParser) -> None:
    """Take all words, also those that begin with a hyphen: they are lm-eval's."""
    parser.prefix_chars = "\0"
    parser.epilog = "kvgauge lm_eval run --help shows lm-eval's own options; --model is kvgauge and may be left out."
    parser.add_argument("words", nargs="*", metavar="--tasks TASK --model_args pretrained=…,method=…,budget=…")
    parser.set_defaults(about=parser.format_help)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Run lm-eval once for each cell of the grid that ``--model_args`` names.

    Raises:
        ConfigError: lm-evaluation-harness is not installed, or an argument cannot be used.
        EngineError: cells could not be evaluated; the results of the others are written.
        KvgaugeError: the model cannot be used.
    """
    if arguments.words in ([], ["-h"], ["--help"]):
        console.print(arguments.about(), markup=False, soft_wrap=True)
        return
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "kvgauge lm_eval: lm-evaluation-harness is not installed: pip install 'kvgauge[lm-eval]'; kvgauge lm_eval "
            "--help shows what it takes"
        )
    from harness.drivers.lm_eval_line import evaluate  # here, because it needs the package

    evaluate(arguments.words, lambda text: console.print(text, markup=False, soft_wrap=True))
