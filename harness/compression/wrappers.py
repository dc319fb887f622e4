"""Methods around another method's scorer, and scorers that start from another scorer's finished scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from harness.compression.allocation import Allocation, Uniform
from harness.compression.method import LayerState, Method, Reranks, Scorer
from harness.errors import ConfigError


@dataclass(frozen=True)
class Wrapper(Method):
    """A method around another one's scorer, as ``method.adakv.scorer=snapkv``.

    It says how many entries the scorer keeps (``allocation``), which ones it keeps (``scorer``), or both.

    Attributes:
        base: the wrapped method, any that scores entries; the setting is called ``scorer`` and names it.

    Raises:
        ConfigError: the wrapped method has no scores that can be wrapped, or budgets of its own.
    """

    wraps: ClassVar[bool] = True
    """By this a configuration knows that its setting ``scorer`` names a method, the field ``base``."""
    base: Method

    def __post_init__(self) -> None:
        super().__post_init__()
        scorer, within = self.base.scorer, f"scorer={self.base.label} (method={self.label})"
        if isinstance(self.base, type(self)):
            raise ConfigError(f"{within} wraps a method in itself: name what is to be wrapped once, as scorer=snapkv")
        if scorer is None:
            raise ConfigError(f"{within} scores no entry: name a method that drops some, as scorer=snapkv")
        if type(self.base).scorer_for is not Method.scorer_for:
            raise ConfigError(f"{within} has scores that depend on the budget: name a method whose scores do not")
        if self.base.evictor is not None:
            raise ConfigError(f"{within} goes on while decoding, which would be lost: name a method of prompts alone")
        if self.base.rerotates and not self.rerotates:
            raise ConfigError(f"{within} turns kept keys to new positions, which would be lost: name another method")
        if isinstance(scorer, Rescorer):
            raise ConfigError(f"{within} is a wrapper with scores of its own: name the method inside it")
        if self.rescores and isinstance(scorer, Reranks) and not self.reranks:
            raise ConfigError(
                f"{within} has scores that depend on how many entries are kept: name a method whose scores do not"
            )
        if self.allocates and self.base.allocation != Uniform():
            raise ConfigError(
                f"{within} has budgets of its own, of which one of the two would be lost: name a method with the same "
                "budget in every layer and head, as scorer=snapkv"
            )

    @property
    def allocates(self) -> bool:
        """Whether the wrapper has its own allocation; if not, it keeps as many entries as the wrapped method."""
        return True

    @property
    def rescores(self) -> bool:
        """Whether the wrapper changes scores; if not, it keeps the entries that the wrapped method scores highest."""
        return True

    @property
    def reranks(self) -> bool:
        """Whether the wrapper can also wrap a scorer that ``Reranks``."""
        return False

    @property
    def scorer(self) -> Scorer:
        """The wrapped method's."""
        assert self.base.scorer is not None
        return self.base.scorer

    @property
    def allocation(self) -> Allocation:
        """The wrapped method's."""
        return self.base.allocation

    @property
    def uses_budget(self) -> bool:
        """Whether the wrapped method uses budgets."""
        return self.base.uses_budget

    def check_budget(self, budget: int) -> None:
        """Refuse a budget that is not above the window, and what the wrapped method refuses."""
        super().check_budget(budget)
        self.base.check_budget(budget)


@dataclass(frozen=True)
class Rescorer(Scorer):
    """A scorer that starts from the finished scores of another, which are computed once for both.

    Attributes:
        base: the other scorer.
    """

    base: Scorer

    @property
    def window(self) -> int:
        """The other scorer's."""
        return self.base.window

    def score(self, layer: LayerState) -> Tensor:
        """The other scorer's scores of the candidates, which ``rescore`` changes once they are finished."""
        return self.base.score(layer)[:, : layer.keys.shape[1] - self.window]

    def rescore(self, scores: Tensor, layer: LayerState) -> Tensor:
        """Change finished scores.

        Args:
            scores: finished scores of the other scorer, [cache_heads, its candidates].
            layer: the state of the layer.

        Returns:
            [cache_heads, candidates]; the scores as they are unless a scorer says otherwise.
        """
        return scores
