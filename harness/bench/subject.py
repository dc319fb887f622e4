"""The subject of a measurement: a model, the variants of a grid, random prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from harness.compression.grid import Variant
from harness.compression.method import LayerState
from harness.compression.selection import Selection
from harness.engine.blocked_linear import plain_linears
from harness.engine.chosen import ChosenKV, share_a_bucket
from harness.engine.engine import Engine
from harness.engine.model_spec import shape_of
from harness.engine.rows import Generated, Limits, Row
from harness.errors import ConfigError
from harness.kernels import Kernels
from harness.results import Cell

_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model and a grid to measure. It can be pickled and sent to another process.

    Attributes:
        name: the model's name.
        load: returns the model with the engine's attention installed, for some kernels.
        config: the model's configuration.
        variants: the grid.
        selection: how entries are selected.
        new_tokens: number of new tokens per row, 2 or more; no token ends a row.
        kernels: what computes; see ``EngineSettings``.
    """

    name: str
    load: Callable[[Kernels], PreTrainedModel]
    config: PretrainedConfig
    variants: tuple[Variant, ...]
    selection: Selection
    new_tokens: int
    kernels: Kernels = "torch"

    @property
    def limits(self) -> Limits:
        """The limits of rows, which end after all new tokens."""
        return Limits(frozenset(), self.new_tokens)

    def engine(self) -> Engine:
        """Load the model."""
        return Engine(self.load(self.kernels), self.name, self.kernels)

    def prompt(self, tokens: int, number: int = 0) -> list[int]:
        """A random prompt.

        Args:
            tokens: length of the prompt.
            number: number of the prompt; another number gives another prompt.

        Raises:
            ConfigError: prompt and new tokens are more than the model's positions.
        """
        positions = getattr(self.config, "max_position_embeddings", None)
        if positions is not None and tokens + self.new_tokens > positions:
            raise ConfigError(
                f"{tokens} prompt and {self.new_tokens} new tokens are more than the {positions} positions "
                f"of {self.name}: use less"
            )
        generator = torch.Generator().manual_seed(_SEED + number)
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
    """Prefill a prompt once; cells that kept the same entries share one row."""
    shape = shape_of(subject.config, len(prompt), subject.selection)
    plans = [variant.plan(shape) for variant in variants]
    done = engine.prefill(prompt, plans, subject.selection)
    rows = {kept.sha256: Row(len(prompt), done.logits, kept.layers) for kept in done.kept}
    return {variant.cell: rows[kept.sha256] for variant, kept in zip(variants, done.kept, strict=True)}


def bytes_read(rows: Sequence[Row]) -> int:
    """Bytes of the kept entries that a step of these rows reads: of a prompt that some of them share, once all."""
    read, chosen = 0, dict[int, list[ChosenKV]]()
    for layer in (layer for row in rows for layer in row.layers):
        if isinstance(layer, ChosenKV) and layer.prompt is not None:
            chosen.setdefault(layer.keys.data_ptr(), []).append(layer)
        else:
            read += layer.bytes
    for some in chosen.values():
        whole = some[0].keys.nbytes + some[0].values.nbytes
        read += whole if share_a_bucket(some) else sum(layer.bytes for layer in some)
    return read


@contextmanager
def by_sdpa(engine: Engine) -> Iterator[None]:
    """Give the model the attention of transformers while the body runs."""
    before = engine.model.config._attn_implementation
    engine.model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        engine.model.set_attn_implementation(before)


@contextmanager
def stock(engine: Engine) -> Iterator[None]:
    """Make the model that of transformers while the body runs: SDPA, and linear layers as they were loaded."""
    with plain_linears(engine.model), by_sdpa(engine):
        yield


def decoded(subject: Subject, engine: Engine, rows: Sequence[Row]) -> list[Generated]:
    """Decode all rows together, to the last new token."""
    return engine.decode(rows, subject.limits)
