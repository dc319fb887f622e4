"""Shards: the examples of a task dealt out over processes that work beside each other."""

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
    """Who writes a cell.

    Attributes:
        name: names the records file.
        split: what workers that may write beside each other have in common: how many they are, and of which examples;
            "" for one that works alone.
    """

    name: str
    split: str


ALONE = Worker("0", "")


@dataclass(frozen=True)
class Shard:
    """Every ``count``-th example of a task, from the one at ``index`` on.

    Attributes:
        index: from 0.
        count: 1 for all examples.

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
        """Whether the example at an index is one of the shard's."""
        return index % self.count == self.index

    def worker(self, examples: Sequence[str]) -> Worker:
        """The writer of this shard of some examples.

        The same number of shards of other examples is another split: an example could be in different shards of the
        two.

        Args:
            examples: the ids of all examples, in their order.
        """
        if self.count == 1:
            return ALONE
        order = hashlib.sha256("\n".join(examples).encode("utf-8", "backslashreplace")).hexdigest()[:8]
        return Worker(f"{self.index}of{self.count}", f"of{self.count}-{order}")
