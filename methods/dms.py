"""DMS's cut: every entry whose score reaches a threshold, and a sliding window, around any scorer.

Claim: a threshold lets each head and each prompt keep what it needs (the inference rule of Dynamic Memory
    Sparsification, Łańcucki et al., arXiv:2506.05345, whose scores come from a trained predictor).
Source: NVIDIA/kvpress 0.5.5, DMSPress.
Differs:
    - from the paper: the scores are a scorer's, not trained ones, and nothing is evicted while decoding.
    - kvpress masks what it drops; here it is dropped. A head in which nothing reaches the threshold keeps its best
      entry if there is no window.
    - it has no budget: its cell is called ``own``.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.thresholds import AtLeast, BeforeWindow, SlidingWindow
from harness.compression.wrappers import Wrapper
from harness.errors import ConfigError


@dataclass(frozen=True)
class DMS(Wrapper):
    """Keep what a scorer gives at least a threshold, and the most recent tokens.

    Attributes:
        threshold: the least score of a kept entry.
        sliding_window: trailing tokens that are always kept, 0 or more.

    Raises:
        ConfigError: a knob does not fit, or the scorer has a longer window.
    """

    threshold: float
    sliding_window: SlidingWindow

    def __post_init__(self) -> None:
        super().__post_init__()
        if (window := super().scorer.window) > self.sliding_window:
            raise ConfigError(
                f"sliding_window={self.sliding_window} (method={self.label}) is below the window={window} of "
                f"scorer={self.base.label}: use {window} or more"
            )

    @property
    def uses_budget(self) -> bool:
        """False: the threshold is in its place."""
        return False

    @property
    def scorer(self) -> BeforeWindow:
        """The wrapped method's, with the sliding window."""
        return BeforeWindow(super().scorer, self.sliding_window)

    @property
    def allocation(self) -> AtLeast:
        """What reaches the threshold."""
        return AtLeast(self.threshold)

    def check_budget(self, budget: int) -> None:
        """Accept any number: there is no budget."""
