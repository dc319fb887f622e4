"""Failures while a prompt is computed: exceptions that concern it alone and end up in its records, and others."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch

from harness.engine import tensor_parallel
from harness.engine.memory import is_out_of_memory, reason_of
from harness.errors import EngineError, KvgaugeError
from harness.text import plain

_LONGEST_REASON = 300


class SelectionFailed(Exception):
    """A scorer, an allocation or a storage raised an exception, which is this one's cause.

    Attributes:
        at: the scorer, the ``Waiting`` of the allocation, or the storage.
    """

    def __init__(self, at: object) -> None:
        """Take what raised."""
        super().__init__()
        self.at = at


def is_of_the_prompt(error: Exception) -> bool:
    """Whether an exception ends the work on one prompt and not the run.

    Errors raised on purpose hold for every prompt, a lack of memory has remedies of its own, after an error of an
    accelerator nothing can be computed on it in this process, and after the loss of a process nothing in the others.

    Raises:
        EngineError: it does, but of several processes not all failed in the same place, and none goes on alone.
    """
    if (
        isinstance(error, KvgaugeError | torch.AcceleratorError)
        or is_out_of_memory(error)
        or tensor_parallel.is_lost(error)
    ):
        return False
    where = traceback.extract_tb(error.__traceback__)[-1:]
    if not tensor_parallel.failed_alike(f"{type(error).__name__} {[(at.filename, at.lineno) for at in where]}"):
        raise EngineError(
            f"{failure(tensor_parallel.name(), error)}; the others did not fail alike and cannot go on without it: "
            "what is finished is kept, and the same command in one process records the error and goes on"
        ) from error
    return True


def failure(what: str, error: BaseException) -> str:
    """The text of an error record: what failed, the exception, and the line that raised it.

    An error that was raised on purpose says all of that itself.

    Args:
        what: what was being computed: ``the prefill``.
        error: the exception.
    """
    if isinstance(error, KvgaugeError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    reason = plain(str(error))[:_LONGEST_REASON]
    return f"{what} failed with {type(error).__name__}{where}{f': {reason}' if reason else ''}"


def prefill_at(at: object) -> str:
    """What was being computed in a prefill, for ``failure``.

    Args:
        at: the scorer, the ``Waiting`` or the storage that was at work; None for the model itself.
    """
    return "the prefill" if at is None else f"the prefill, at {getattr(at, 'allocation', at)}"


def decoding_failure(error: Exception) -> str | None:
    """The text of the error records of rows that cannot be decoded; None if memory ran out.

    Raises:
        Exception: the error itself, if it was raised on purpose or another process is lost.
        EngineError: the device failed, or one of several processes ran out of memory.
    """
    if is_of_the_prompt(error):
        return failure("decoding", error)
    if not is_out_of_memory(error):
        if isinstance(error, torch.AcceleratorError):
            raise EngineError(
                f"the device failed ({reason_of(error)}), and this process can compute nothing more on it: what is "
                "finished is kept, and the same command goes on from there"
            ) from error
        raise error
    if tensor_parallel.count() > 1:
        raise EngineError(
            f"{tensor_parallel.name()} ran out of memory ({reason_of(error)}), and the others cannot go back to do "
            "what was begun in parts: use a smaller engine.width or engine.prefill_chunk"
        ) from error
    return None
