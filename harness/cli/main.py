"""The command line: words to a command or to a run, errors to one line and an exit code."""

from __future__ import annotations

import logging
import os
import re
import sys

from harness.cli.commands import command_line
from harness.cli.errors import is_told, report


def main() -> None:
    """Run the command line; every error raised on purpose is one line, with its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries would stand above the one line
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    try:
        if len(sys.argv) > 1 and re.fullmatch(r"\w+", sys.argv[1]):
            command_line(sys.argv[1:])
        else:
            from harness.cli.run import start  # not above: most commands need nothing of Hydra

            start()
    except (Exception, KeyboardInterrupt) as error:
        if not is_told(error):
            raise
        report(error)
