"""What is measured: a model, the variants of a grid, random prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from harness.compression.grid import Variant
from harness.compression.method import LayerState
from harness.compression.selection import Selection
from harness.engine.decode import Generated, Limits, Row
from harness.engine.engine import Engine
from harness.errors import ConfigError
from harness.kernels import Kernels
from harness.results import Cell

_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model and a grid. All of it can be sent to another process.

    Attributes:
        name: the model's name.
        load: gives the model with the engine's attention installed.
        config: the model's configuration.
        variants: the grid.
        selection: how entries are picked.
        new_tokens: decoded per row, 2 or more; no token ends a row.
        kernels: see ``EngineSettings``.
    """

    name: str
    load: Callable[[], PreTrainedModel]
    config: PretrainedConfig
    variants: tuple[Variant, ...]
    selection: Selection
    new_tokens: int
    kernels: Kernels = "torch"

    @property
    def limits(self) -> Limits:
        """When a row ends: after all new tokens."""
        return Limits(frozenset(), self.new_tokens)

    def engine(self) -> Engine:
        """The loaded model."""
        return Engine(self.load(), self.name, self.kernels)

    def prompt(self, tokens: int, place: int = 0) -> list[int]:
        """A random prompt.

        Raises:
            ConfigError: longer than the model's positions.
        """
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and tokens + self.new_tokens > positions:
            raise ConfigError(
                f"{tokens} prompt and {self.new_tokens} new tokens are more than the {positions} positions of {self.name}: use less"
            )
        generator = torch.Generator().manual_seed(_SEED + place)
        return torch.randint(self.config.vocab_size, (tokens,), generator=generator).tolist()


def random_layer(subject: Subject, engine: Engine, tokens: int) -> LayerState:
    """One layer of the model's shape, in its dtype and on its device, with random states."""
    config = subject.config
    heads, kv_heads = (
        config.num_attention_heads,
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
    )
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    generator = torch.Generator().manual_seed(_SEED)

    def states(heads: int) -> Tensor:
        return torch.randn(heads, tokens, dim, generator=generator).to(engine.model.dtype).to(engine.device)

    return LayerState(states(heads), states(kv_heads), states(kv_heads), 0, 1, dim**-0.5, torch.float32)


def prefilled(subject: Subject, engine: Engine, prompt: Sequence[int], variants: Sequence[Variant]) -> dict[Cell, Row]:
    """One prefill; cells that kept the same entries share one row."""
    plans = [variant.plan(len(prompt), subject.config.num_hidden_layers) for variant in variants]
    done = engine.prefill(prompt, plans, subject.selection)
    rows = {kept.sha256: Row(len(prompt), done.logits, kept.layers) for kept in done.kept}
    return {variant.cell: rows[kept.sha256] for variant, kept in zip(variants, done.kept, strict=True)}


def decoded(subject: Subject, engine: Engine, rows: Sequence[Row]) -> list[Generated]:
    """All rows together, to the last of the new tokens."""
    return engine.decode(rows, subject.limits)
