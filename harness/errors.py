"""Every error that kvgauge raises on purpose, with its exit code.

    KvgaugeError                exit code 1
    ├── ConfigError             exit code 2: a setting that cannot be used, found before any work
    │   └── BudgetError         a budget that this method cannot obey
    ├── DataError               exit code 3: a file that is missing, empty or malformed
    ├── ModelError              exit code 4: a model that cannot be loaded, or cannot be evaluated exactly
    ├── StoreError              exit code 5: a results folder that cannot be read, written or extended
    ├── EngineError             exit code 6: the engine cannot go on; memory is short or a process is lost
    ├── TrackerError            exit code 7: results cannot be sent; a run only warns of it
    ├── LaunchError             exit code of the first job that failed; 137 if it was killed
    └── Stopped                 exit code 143 or 130: SIGTERM or SIGINT, after the current batch

A message is one line: fact, value, remedy.
"""

from collections.abc import Sequence
from signal import SIGINT, Signals


class KvgaugeError(Exception):
    """Base of all errors raised on purpose. The command line prints the message and exits with ``exit_code``."""

    exit_code = 1


class ConfigError(KvgaugeError):
    """A setting that cannot be used."""

    exit_code = 2


class BudgetError(ConfigError):
    """A budget that the method cannot obey for this prompt."""


class DataError(KvgaugeError):
    """A file that is missing, empty or malformed."""

    exit_code = 3


class ModelError(KvgaugeError):
    """A model that cannot be loaded, or whose attention the engine cannot reproduce exactly."""

    exit_code = 4


class StoreError(KvgaugeError):
    """A results folder that cannot be read, written or extended."""

    exit_code = 5


class OtherVersionError(StoreError):
    """A cell that another version of kvgauge wrote, and of which this one cannot read everything."""


class EngineError(KvgaugeError):
    """The engine cannot go on: one prompt alone does not fit into memory, or a process of the model is lost."""

    exit_code = 6


class TrackerError(KvgaugeError):
    """Results that cannot be sent to a tracker. A run warns of it at its end; ``kvgauge wandb`` fails."""

    exit_code = 7


class LaunchError(KvgaugeError):
    """Some jobs that a launcher started failed."""

    def __init__(self, jobs: int, codes: Sequence[int]) -> None:
        """Make a message of how many failed and how to go on.

        Args:
            jobs: number of jobs that were started.
            codes: exit codes of those that failed.
        """
        super().__init__(
            f"{len(codes)} of {jobs} jobs did not come to their end or have errors: what is finished is kept, "
            "and the same command goes on from there"
        )
        self.exit_code = next((code for code in codes if code != 1), 1)


class Stopped(KvgaugeError):
    """A signal ended the run."""

    def __init__(self, signal_number: int) -> None:
        """Make a message that names the signal.

        Args:
            signal_number: number of SIGTERM or SIGINT.
        """
        what = "interrupted" if signal_number == SIGINT else f"stopped by {Signals(signal_number).name}"
        super().__init__(f"{what}: what is finished is kept, and the same command goes on from there")
        self.exit_code = 128 + signal_number
