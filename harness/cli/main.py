"""The command line's entry point: it starts a command or a run, and turns errors into one line and an exit code."""

from __future__ import annotations

import logging
import os
import re
import sys

from harness.cli.commands import command_line
from harness.cli.errors import is_told, report
from harness.printing import unfailing_output


def main() -> None:
    """Run the command line; every error that is raised on purpose is printed as one line, with its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for kept in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        # Shapes whose products torch and oneDNN hold compiled: more than a step needs, and less memory than by default.
        os.environ.setdefault(kept, "128")
    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would log retries above the one line
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them
    with unfailing_output():
        try:
            if sys.argv[1:] == ["--version"]:
                from kvgauge import __version__

                print(f"kvgauge {__version__}")
            elif len(sys.argv) > 1 and re.fullmatch(r"\w+", sys.argv[1]):
                command_line(sys.argv[1:])
            else:
                from harness.cli.run import start  # here, because most commands do not need Hydra

                start()
        except (Exception, KeyboardInterrupt) as error:
            if not is_told(error):
                raise
            report(error)
