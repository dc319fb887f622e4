"""The forms of a model's layers: which tokens a layer attends to, and how its logits become weights.

Layers that attend to all earlier tokens are compressed. Others attend to a window of tokens, are computed exactly, and
keep what the window needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from harness.compression.attention_weights import Softmax
from harness.engine.row_lengths import scaled_beyond
from harness.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from harness.compression.grid import Plan

    Position = TypeVar("Position", int, Tensor)


@dataclass(frozen=True)
class Window:
    """The tokens that a layer attends to.

    Attributes:
        kind: ``sliding``: a token and those before it, ``size`` in all. ``chunked``: those of a token's own chunk of
            ``size`` tokens, up to itself.
        size: number of tokens, 1 or more.
    """

    kind: Literal["sliding", "chunked"]
    size: int

    def first(self, position: Position) -> Position:
        """Position of the first token that the token at a position sees; below 0 where it sees all earlier ones."""
        if self.kind == "sliding":
            return position - self.size + 1
        return position // self.size * self.size

    def needed(self, tokens: int) -> int:
        """Number of entries, of so many tokens, that later tokens still see."""
        return tokens - max(0, self.first(tokens))


@dataclass(frozen=True, eq=False)
class LayerForm:
    """The form of one layer.

    Attributes:
        window: the tokens that it attends to; None for all earlier ones.
        softcap: see ``Softmax``.
        sinks: see ``Softmax``.
        temperature: what its queries are multiplied by; None for nothing.
    """

    window: Window | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    temperature: Temperature | None = None

    def softmax(self, scaling: float) -> Softmax:
        """How the layer turns query-key products into weights."""
        return Softmax(scaling, self.softcap, self.sinks)


PLAIN = LayerForm()
"""Softmax attention to all earlier tokens."""


@dataclass(frozen=True)
class Temperature:
    """Queries that grow with their position, as in Llama 4's layers without positions.

    A query is multiplied by 1 + scale * log(1 + floor((position + 1) / floor)). Llama 4 itself counts positions from
    the cache that transformers would have, so that its factors are those of tokens that start at 0.

    Attributes:
        scale: see above.
        floor: see above, in tokens.
    """

    scale: float
    floor: float

    def moved(self, queries: Tensor, positions: Tensor) -> Tensor:
        """Queries [rows, heads, tokens, D] with the factors of 0, 1, … as those of their positions [rows, tokens]."""
        counted = torch.arange(positions.shape[1], device=positions.device)[None]
        factors = self._factors(positions) / self._factors(counted)
        return (queries * factors[:, None, :, None]).to(queries.dtype)

    def _factors(self, positions: Tensor) -> Tensor:
        return ((positions.float() + 1) / self.floor).floor().log1p() * self.scale + 1


def layer_windows(config: PretrainedConfig) -> tuple[Window | None, ...]:
    """The window of each layer of a configuration that ``refuse_config`` lets pass; None for all earlier tokens."""
    windows: dict[str, Window | None] = {"full_attention": None}
    if (size := getattr(config, "sliding_window", None)) is not None:
        windows["sliding_attention"] = Window("sliding", size)
    if (size := getattr(config, "attention_chunk_size", None)) is not None:
        windows["chunked_attention"] = Window("chunked", size)
    return tuple(windows[kind] for kind in layer_types(config))


def layer_types(config: PretrainedConfig) -> Sequence[str]:
    """What transformers calls the attention of each layer; one window for all layers where it names none."""
    named: Sequence[str] | None = getattr(config, "layer_types", None)
    if named is not None:
        return named
    sliding = getattr(config, "use_sliding_window", True) and getattr(config, "sliding_window", None) is not None
    return ("sliding_attention" if sliding else "full_attention",) * int(config.num_hidden_layers)


def full_layers(forms: Sequence[LayerForm]) -> tuple[int, ...]:
    """Indices of the layers that attend to all earlier tokens, which are those that are compressed."""
    return tuple(index for index, form in enumerate(forms) if form.window is None)


def window_entries(config: PretrainedConfig, tokens: int) -> int:
    """Entries of one head that the layers with windows keep together of a prompt of so many tokens."""
    return sum(window.needed(tokens) for window in layer_windows(config) if window is not None)


def window_room(config: PretrainedConfig, tokens: int) -> int:
    """The most entries of one head that the layers with windows hold together at any of so many tokens."""
    return sum(min(window.size, tokens) for window in layer_windows(config) if window is not None)


def why_not_plain(config: PretrainedConfig) -> str | None:
    """Why the project's kernels cannot compute a model's decoding steps, to follow ``kernels=``; None if they can."""
    if any(layer_windows(config)):
        return "computes no layers with windows of tokens, which this model has"
    if getattr(config, "attn_logit_softcapping", None) is not None:
        return "computes no soft-capped logits, which this model has"
    if scaled_beyond(config) is not None:
        return "computes no rows whose angles depend on their length, which this model has"
    return None


def layer_notes(config: PretrainedConfig) -> list[str]:
    """What a reader of the numbers must know of the layers with windows; empty without any."""
    windows = layer_windows(config)
    sizes = sorted({f"{window.kind} window of {window.size}" for window in windows if window is not None})
    if not sizes:
        return []
    full, size = windows.count(None), " or a ".join(sizes)
    if not full:
        return [f"All layers of this model attend to a {size} tokens and keep what it needs; none is compressed."]
    others = "the other one" if full == 1 else f"the other {full}"
    return [
        f"{len(windows) - full} of this model's {len(windows)} layers attend to a {size} tokens: they are computed "
        "exactly and keep what the window needs under every method. Budgets and kept entries are those of "
        f"{others}; bytes are those of all layers."
    ]


def refuse_moved_keys(config: PretrainedConfig, plan: Plan) -> None:
    """Refuse a plan that turns kept keys to new positions on a model that has other ones for them.

    Raises:
        ConfigError: the model has layers with windows, or positions that depend on lengths.
    """
    what = "layers with windows of tokens" if plan.rerotates and any(layer_windows(config)) else None
    turns = plan.rerotates or (plan.eviction is not None and plan.eviction.evictor.rerotated > 0)
    if turns and scaled_beyond(config) is not None:
        what = "positions whose angles depend on the length of a sequence"
    if what is not None:
        raise ConfigError(
            "a method that turns kept keys to new positions needs layers that attend to all earlier "
            f"tokens at fixed angles, and this model has {what}: leave that method out, or use another model"
        )


def layer_forms(model: PreTrainedModel) -> tuple[LayerForm, ...]:
    """The form of each layer, by the configuration and the sinks of the model."""
    config = model.config
    sinks: dict[Any, Tensor] = {
        getattr(module, "layer_idx", None): found.detach()
        for module in model.modules()
        if isinstance(found := getattr(module, "sinks", None), Tensor)
    }
    softcap = getattr(config, "attn_logit_softcapping", None)
    return tuple(
        LayerForm(window, softcap, sinks.get(index), _temperature(config, index))
        for index, window in enumerate(layer_windows(config))
    )


def _temperature(config: Any, layer: int) -> Temperature | None:
    rotated = getattr(config, "no_rope_layers", None)
    if not getattr(config, "attn_temperature_tuning", False) or rotated is None or rotated[layer]:
        return None
    return Temperature(config.attn_scale, config.floor_scale)
