"""StreamingLLM: the first tokens ("attention sinks") and the most recent ones.

Claim: sinks keep a model fluent beyond its window (Xiao et al., arXiv:2309.17453).
Source: Zefan-Cai/KVCache-Factory at c97f9d7, the code of the published comparisons.
Differs:
    - from the paper: prompt tokens attend to the whole prompt, and kept keys stay at their original positions (the
      paper renumbers them inside the cache).
    - ``sinks: 4`` (LongBench tables) leaves the rest of the budget to the recent tokens; ``window: 32`` (needle tables)
      leaves the rest to the first tokens, which makes it another method under the same name. One of the two is null.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.method import Method, Scorer, require_above
from harness.compression.scorers import FirstTokens, Sinks, SinksThenRecent, Window
from harness.errors import ConfigError


@dataclass(frozen=True)
class StreamingLLM(Method):
    """Keep the first tokens and the most recent ones.

    Attributes:
        sinks: number of first tokens kept, the rest of the budget being recent tokens; or null.
        window: number of recent tokens kept, the rest of the budget being first tokens; or null.

    Raises:
        ConfigError: both or neither of ``sinks`` and ``window`` are given, or one is out of range.
    """

    sinks: Sinks | None
    window: Window | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.sinks is None) == (self.window is None):
            raise ConfigError(
                f"sinks={self.sinks} and window={self.window} (method={self.label}): "
                "give one, the rest of the budget is the other; "
                f"set method.{self.label}.sinks=null or method.{self.label}.window=null"
            )

    @property
    def scorer(self) -> Scorer:
        """Position alone: the first tokens, then the most recent ones if ``sinks`` is set."""
        return SinksThenRecent(self.sinks) if self.sinks is not None else FirstTokens(self.window or 0)

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above ``sinks`` or ``window``."""
        if self.sinks is not None:
            require_above(budget, "sinks", self.sinks, self.label)
        else:
            require_above(budget, "window", self.window or 0, self.label)
