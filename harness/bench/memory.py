"""Peak memory of a prefill and a few decoding steps against the prompt's length."""

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


def peak_bytes(subject: Subject, engine: Engine, variants: Sequence[Variant], tokens: int) -> int:
    """Bytes beyond the model that a prompt takes at most.

    On a CUDA device how much its allocator held at most beyond what it held before; on a CPU that of a new process.

    Args:
        subject: a model that can be loaded in another process.
        engine: the loaded subject.
        variants: those of the subject that share the prefill and decode together.
        tokens: of the prompt.

    Raises:
        EngineError: the new process failed.
    """
    return (
        _growth(subject, engine, variants, tokens)
        if engine.device.type == "cuda"
        else peak_of_a_process(subject, variants, tokens)
    )


def peak_of_a_process(subject: Subject, variants: Sequence[Variant], tokens: int) -> int:
    """How much the resident set of a new process grows, which can start no lower than loading the model had driven it.

    Args:
        subject, variants, tokens: as in ``peak_bytes``.

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
    """What the process of one point does: read a point from standard input, print its bytes."""
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
    rows = prefilled(subject, engine, subject.prompt(tokens), variants)
    decoded(subject, engine, list({id(row): row for row in rows.values()}.values()))
