"""Peak memory of a prefill and a few decoding steps, by prompt length."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence

import torch

from harness.bench.subject import Subject, decoded, prefilled
from harness.compression.grid import Variant
from harness.engine.engine import Engine
from harness.engine.memory import held_at_most, reset_peak
from harness.errors import EngineError

_WARM_UP_TOKENS = 64
_WIDTH = 64
"""Rows that decode together at most, as a run has it where nothing else is said."""


def peak_bytes(subject: Subject, engine: Engine, variants: Sequence[Variant], tokens: int) -> int:
    """Peak bytes beyond the model that a prompt takes.

    On a CUDA device, it is the growth of the peak of this process's allocator; on a CPU, the growth of a new process.

    Args:
        subject: a model that can be loaded in another process.
        engine: the loaded subject.
        variants: the variants of the subject that share the prefill and decode together.
        tokens: length of the prompt.

    Raises:
        EngineError: the new process failed.
    """
    return (
        _growth(subject, engine, variants, tokens)
        if engine.device.type == "cuda"
        else peak_of_a_process(subject, variants, tokens)
    )


def peak_of_a_process(subject: Subject, variants: Sequence[Variant], tokens: int) -> int:
    """Bytes by which the peak resident set of a new process grows.

    Growth below the peak of loading the model does not show.

    Args:
        subject: a model that can be loaded in another process.
        variants: the variants of the subject that share the prefill and decode together.
        tokens: length of the prompt.

    Raises:
        EngineError: the process failed.
    """
    payload = pickle.dumps((torch.get_num_threads(), subject, tuple(variants), tokens))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    program = f"from {__name__} import child; child()"
    done = subprocess.run(
        [sys.executable, "-c", program], input=payload, capture_output=True, env=environment, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"])[-1][
            :200
        ]
        raise EngineError(
            f"peak memory at {tokens} tokens could not be measured ({reason}): use shorter prompts or a larger machine"
        )
    return int(done.stdout.split()[-1])


def child() -> None:
    """Run in the new process: read what to measure from standard input, and print the bytes."""
    threads, subject, variants, tokens = pickle.loads(sys.stdin.buffer.read())
    torch.set_num_threads(threads)
    engine = subject.engine()
    _work(subject, variants, _WARM_UP_TOKENS, engine)
    print(_growth(subject, engine, variants, tokens))


def _growth(subject: Subject, engine: Engine, variants: Sequence[Variant], tokens: int) -> int:
    reset_peak(engine.device)
    before = held_at_most(engine.device)
    _work(subject, variants, tokens, engine)
    return held_at_most(engine.device) - before


def _work(subject: Subject, variants: Sequence[Variant], tokens: int, engine: Engine) -> None:
    by_cell = prefilled(subject, engine, subject.prompt(tokens), variants)
    rows = list({id(row): row for row in by_cell.values()}.values())
    for first in range(0, len(rows), _WIDTH):
        decoded(subject, engine, rows[first : first + _WIDTH])
