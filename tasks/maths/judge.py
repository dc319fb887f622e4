"""Whether two answers are the same number, formula, set or interval, by math-verify in a process of its own.

A comparison can take for ever (a power of a power of a power), and math-verify limits it by alarms, which need the main
thread and would switch off those of ``engine.time_limit_seconds``. A process can be ended from any thread.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

from harness.errors import ConfigError

SECONDS = 10.0
"""Time for one comparison. One that takes longer says that the answers differ, as in math-verify, whose limits are 5 s
for reading an answer and 5 s for comparing it."""
_START_SECONDS = 120.0
"""Time for the first answer of a process, which imports sympy; on a busy machine that takes a while."""
_WORKER = Path(__file__).with_name("math_verify_worker.py")


def check_installed(task: str) -> None:
    """Refuse to score without math-verify.

    Args:
        task: name of the task, for the error.

    Raises:
        ConfigError: it is not installed.
    """
    if find_spec("math_verify") is None:
        raise ConfigError(
            f"task={task} compares answers by math-verify, which is not installed: pip install 'kvgauge[maths]'"
        )


class Judge:
    """Compares answers, one at a time, whichever thread asks."""

    def __init__(self, seconds: float = SECONDS) -> None:
        """Start no process yet.

        Args:
            seconds: time for one comparison, above 0.
        """
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = os.getpid()

    def same(self, gold: str, prediction: str) -> bool:
        """Whether math-verify finds the reference in a prediction.

        Args:
            gold: the reference, as LaTeX without dollar signs.
            prediction: a text with an answer in it.

        Returns:
            Its verdict; False if it fails on the texts or takes too long.
        """
        question = json.dumps([gold, prediction])
        with self._lock:
            try:
                return self._ask(question)
            except BaseException:  # a signal or an alarm of the run: an answer that comes later is none to the next
                self.close()
                raise

    def close(self) -> None:
        """End the process, if there is one; the next comparison starts another."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.communicate()

    def _ask(self, question: str) -> bool:
        if self._process is None or self._owner != os.getpid():  # a fork must not read its parent's answers
            self._owner = os.getpid()
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # a Ctrl-C in the terminal is for the run, which ends the process when it ends
            )
            self._read(json.dumps(["1", "1"]), _START_SECONDS)
        answer = self._read(question, self._seconds)
        if answer is None:
            self.close()
        return answer is True

    def _read(self, question: str, seconds: float) -> bool | None:
        """The answer to a question; None if the process ended or the time is up."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
        except OSError:
            return None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(seconds) else ""
        return bool(json.loads(line)) if line else None


JUDGE = Judge()
atexit.register(JUDGE.close)
