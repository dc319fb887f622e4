"""Key re-rotation: kept keys are turned to the positions 0, 1, …, around any scorer with one budget everywhere.

Claim: a model attends better to keys whose positions have no gaps (StreamingLLM's positions within the cache: Xiao et
    al., arXiv:2309.17453).
Source: NVIDIA/kvpress 0.5.5, KeyRerotationPress.
Differs:
    - kvpress turns keys whatever each layer and head keeps; here all keep equally many, so that what follows has one
      position.
    - a share of the prompt is rounded half to even; kvpress cuts it down.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.compression.wrappers import Wrapper


@dataclass(frozen=True)
class Rerotated(Wrapper):
    """Keep what the wrapped method keeps, without gaps between positions; what follows stands right behind."""

    @property
    def rescores(self) -> bool:
        """False: the scores are the wrapped method's."""
        return False

    @property
    def rerotates(self) -> bool:
        """True: this is what it does."""
        return True
