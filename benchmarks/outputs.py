"""Where the benchmarks write: to the committed results, or beside them what a quick form shows."""

from __future__ import annotations

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def add_out(parser: argparse.ArgumentParser) -> None:
    """Declare ``--out``."""
    parser.add_argument(
        "--out",
        type=Path,
        help="where the files go (default: benchmarks/results; quick: its folder quick)",
    )


def out_folder(options: argparse.Namespace, name: str = "") -> Path:
    """Where this run's files go.

    Args:
        options: the arguments, with ``out`` and ``quick``.
        name: of a folder of its own among the results; "" for none.
    """
    given: Path | None = options.out
    return given or (RESULTS / "quick" if options.quick else RESULTS) / name
