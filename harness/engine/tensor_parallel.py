"""Tensor parallelism: the processes of one run, each with some of the model's heads.

The first process, rank 0, leads: it alone reads and writes results, and tells the others what to compute. Whatever
spans all heads is gathered from all processes, so that each has the same. In a run of one process, these functions
return what they are given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from harness.errors import ConfigError, EngineError, KvgaugeError, Stopped

T = TypeVar("T")

# Environment variables that torchrun sets in each of its processes.
_FROM_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The others wait for as long as the first process reads, scores and writes. If it dies, their connection is closed.
_PATIENCE = timedelta(days=7)
# How long a process that failed waits for the others to fail alike; one that goes on instead waits for it in a sum.
_AGREEMENT = timedelta(seconds=30)
_LOST = re.compile(
    r"closed by peer|connection reset|broken pipe|connection refused|remote process exited", re.IGNORECASE
)

_control: Any = None  # the process group for orders and numbers: gloo, whatever the model's group uses
_failed: Any = None  # the process group of those that have failed: gloo, with little patience


@contextmanager
def joined(tp_plan: str | None) -> Iterator[None]:
    """Join the processes that torchrun started while the body runs; without a plan, do nothing.

    Args:
        tp_plan: the value of ``model.tp_plan``.

    Raises:
        ConfigError: torchrun did not start this process, or there are fewer cards than processes.
        EngineError: another process ended early.
    """
    if tp_plan != "auto":
        yield
        return
    try:
        _join()
        yield
    except EngineError:
        raise
    except KvgaugeError as error:
        if os.environ.get("RANK", "0") == "0":
            raise
        # The first process has the same error and reports it; if this process failed, torchrun would end that one
        # before it can.
        raise SystemExit(0) from error
    except RuntimeError as error:
        if not is_lost(error):
            raise
        if not is_first():
            raise SystemExit(EngineError.exit_code) from error  # the process that ended has said why
        raise EngineError(
            f"one of the {count()} processes of this run has ended: its own line says why; what is finished is kept, "
            "and the same command goes on from there"
        ) from error
    dist.destroy_process_group()


def _join() -> None:
    """Set up the process groups, and take this process's card."""
    global _control, _failed
    if missing := [name for name in _FROM_TORCHRUN if name not in os.environ]:
        raise ConfigError(
            f"model.tp_plan=auto needs the processes of torchrun ({missing[0]} is not set): "
            "torchrun --nproc-per-node 2 run.py model.tp_plan=auto …"
        )
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    _control = dist.new_group(backend="gloo", timeout=_PATIENCE)
    _failed = dist.new_group(backend="gloo", timeout=_AGREEMENT)
    together(_take_card)


def _take_card() -> None:
    cards, here = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available():
        if here > cards:
            raise ConfigError(
                f"torchrun has started {here} processes for {cards} cards: use --nproc-per-node {cards} or fewer"
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def count() -> int:
    """Number of processes that share the model; 1 if none have joined."""
    return dist.get_world_size() if are_joined() else 1


def are_joined() -> bool:
    """Whether the processes of torchrun have joined."""
    return dist.is_available() and dist.is_initialized()


def is_first() -> bool:
    """Whether this process leads."""
    return not are_joined() or dist.get_rank() == 0


def name() -> str:
    """The name of this process in messages: ``process 0 of 2``."""
    return f"process {dist.get_rank() if are_joined() else 0} of {count()}"


def say(order: object) -> None:
    """Send an order from the first process to the others; it is pickled."""
    if count() > 1:
        dist.broadcast_object_list([order], src=0, group=_control, device=torch.device("cpu"))


def hear() -> Any:
    """Wait for the next order of the first process."""
    orders: list[Any] = [None]
    dist.broadcast_object_list(orders, src=0, group=_control, device=torch.device("cpu"))
    return orders[0]


def together(work: Callable[[], T]) -> T:
    """Run work in every process; if it fails in one of them, the error is raised in all.

    Args:
        work: the function to run; no process may wait for another inside it.

    Returns:
        What ``work`` returned in this process.

    Raises:
        KvgaugeError: the error of the lowest rank that has one.
    """
    if count() == 1:
        return work()
    result: list[T] = []
    failure = None
    try:
        result.append(work())
    except Stopped:
        raise
    except KvgaugeError as error:
        failure = error
    failures: list[KvgaugeError | None] = [None] * count()
    dist.all_gather_object(failures, failure, group=_control)
    if first := next((error for error in failures if error is not None), None):
        raise first
    return result[0]


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    return isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None


def failed_alike(what: str) -> bool:
    """Whether all processes have failed, and in the same way, so that they can go on together.

    A process that has not failed does not ask, and waits for this one meanwhile; then this one waits half a minute.

    Args:
        what: the kind and the place of the failure, without what can be another thing in another process.
    """
    if count() == 1:
        return True
    failures: list[str | None] = [None] * count()
    try:
        dist.all_gather_object(failures, what, group=_failed)
    except RuntimeError:  # the time is up, or a process has ended
        return False
    return set(failures) == {what}


def from_first(tensor: Tensor) -> Tensor:
    """The tensor of the first process, so that rounding cannot make processes differ."""
    if count() > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def all_heads(tensor: Tensor) -> Tensor:
    """Gather [heads, …] of each process into [all heads, …], in the order of the heads."""
    if count() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def total(number: int) -> int:
    """The sum over all processes."""
    return _reduced(number, dist.ReduceOp.SUM)


def least(number: int) -> int:
    """The smallest value over all processes."""
    return _reduced(number, dist.ReduceOp.MIN)


def most(number: int) -> int:
    """The largest value over all processes."""
    return _reduced(number, dist.ReduceOp.MAX)


def _reduced(number: int, by: Any) -> int:
    if count() == 1:
        return number
    tensor = torch.tensor(number)
    dist.all_reduce(tensor, by, group=_control)
    return int(tensor)
