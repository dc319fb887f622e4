"""Block-wise iteration: the prompt comes in blocks, and each is scored among what earlier ones left, around any scorer.

Claim: a cache that never grows beyond its budget needs scores that look no further (KeyDiff, Park et al.,
    arXiv:2504.15364, whose own form this is).
Source: NVIDIA/kvpress 0.5.5, BlockPress.
Differs:
    - from the paper: the prompt is prefilled whole, so that a block's hidden states have seen what was dropped.
    - the scorer must look at keys and values alone, since the tokens that it sees are no longer neighbours.
    - a share of the prompt is rounded half to even; kvpress cuts it down.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.blocks import Blocks, BlockSize
from harness.compression.wrappers import Wrapper
from harness.errors import ConfigError


@dataclass(frozen=True)
class Block(Wrapper):
    """Keep what remains when the prompt comes in blocks.

    Attributes:
        block_size: tokens of a block, 1 or more.

    Raises:
        ConfigError: a knob does not fit, or the scorer keeps a window.
    """

    block_size: BlockSize

    def __post_init__(self) -> None:
        super().__post_init__()
        if window := super().scorer.window:
            raise ConfigError(
                f"scorer={self.base.label} (method={self.label}) always keeps its last {window} tokens, and blocks "
                "choose among all: name a method of keys and values alone, as scorer=keydiff"
            )

    @property
    def scorer(self) -> Blocks:
        """What remains."""
        return Blocks(super().scorer, self.block_size)
