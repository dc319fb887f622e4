"""The process that compares answers with math-verify: JSON lines in, JSON lines out.

It runs as a program of its own and imports nothing of kvgauge; ``judge.py`` beside it starts it, and ends it when a
comparison takes too long. math-verify's own limits are alarms, which only a main thread has and which would switch off
those of a run, so they are off here.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import redirect_stdout, suppress

_MEMORY = 4 * 2**30
"""Bytes that a comparison may take; a power of a power would fill the machine."""


def main() -> None:
    """Answer each line ``[gold, prediction]`` with true or false, until there are no more."""
    from math_verify import parse, verify

    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    logging.disable(logging.CRITICAL)  # it warns that its limits are off, and of every formula that it cannot read
    answers = sys.stdout
    for line in sys.stdin:
        gold, prediction = json.loads(line)
        same = False
        with redirect_stdout(sys.stderr), suppress(Exception):
            wanted = parse(f"${gold}$", parsing_timeout=None)
            given = parse(prediction, parsing_timeout=None)
            same = bool(verify(wanted, given, timeout_seconds=None))
        print(json.dumps(same), file=answers, flush=True)


if __name__ == "__main__":
    main()
