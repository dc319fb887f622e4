"""A job that is killed some times before it ends, for the launchers' tests; importing it takes no time."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from harness.launchers.work import Job, Outcome


@dataclass(frozen=True)
class Mortal(Job):
    """Computes nothing, and writes down its starts.

    Attributes:
        kills: how many starts end in a kill.
    """

    kills: int

    def __call__(self) -> Outcome:
        starts = Path(self.folder) / f"{self.name}.starts"
        with starts.open("a") as file:
            file.write("x")
        if starts.stat().st_size <= self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(0, "done")
