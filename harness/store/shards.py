"""Shards: the examples of a task divided among processes that run at the same time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from harness.errors import ConfigError
from harness.values import Refusal, check

_REMEDY = "use shards=4 shard=0 to shard=3"


@dataclass(frozen=True)
class Worker:
    """The identity under which a process writes to a cell.

    Attributes:
        name: name of its records file: ``records.<name>.jsonl``.
        split: identifies the number of shards and the examples that are split; workers with the same one may write at
            the same time. "" for a worker that works alone.
    """

    name: str
    split: str


ALONE = Worker("0", "")


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th example of a task, beginning with the one at ``index``.

    Attributes:
        index: number of the shard, from 0.
        count: number of shards; 1 for all examples.

    Raises:
        ConfigError: there is no such shard.
    """

    index: Annotated[int, Meta(ge=0), Refusal("is not a whole number of 0 or more", _REMEDY)]
    count: Annotated[int, Meta(ge=1), Refusal("is not a whole number of 1 or more", _REMEDY)]

    def __post_init__(self) -> None:
        check(self, names={"index": "shard", "count": "shards"})
        if self.index >= self.count:
            raise ConfigError(
                f"shard={self.index} is none of the {self.count} shards: use shard=0 to shard={self.count - 1}, or "
                "more shards"
            )

    def has(self, index: int) -> bool:
        """Whether the example at ``index`` belongs to the shard."""
        return index % self.count == self.index

    def worker(self, examples: Sequence[str]) -> Worker:
        """The worker for this shard of some examples.

        The same number of shards of other examples is a different split, because an example could belong to different
        shards of the two.

        Args:
            examples: the ids of all examples, in order.
        """
        if self.count == 1:
            return ALONE
        order = hashlib.sha256("\n".join(examples).encode("utf-8", "backslashreplace")).hexdigest()[:8]
        return Worker(f"{self.index}of{self.count}", f"of{self.count}-{order}")
