"""The attention function that kvgauge registers with transformers, and the guards around it.

The model calls ``attention`` in every layer. It passes queries, keys and values to the ``LayerAttention`` that came
with the forward call: a prefill or a decoding step. No model class is patched and no cache class is subclassed. Three
guards make sure that no layer is missed silently: ``refuse_config`` before any weight is read, a check that each call
asks for the window, the softcap and the sinks by which the layer is computed, and ``check_layers`` after each forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.compression.attention_weights import Softmax
from harness.engine.layer_forms import LayerForm, layer_types
from harness.engine.row_lengths import follow_row_lengths
from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

NAME = "kvgauge"
ENGINE = "kvgauge_engine"

# Layers that transformers has a name for and the engine computes. Chunked layers say nothing in their calls.
_LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention")


class WithoutEngine(ModelError):
    """A model was called without the engine, by others or because its classes do not hand it on."""


class LayerAttention(Protocol):
    """Computes the attention of one forward call, layer by layer.

    Attributes:
        forms: the form of each layer, by which it is computed.
        positions: of the tokens of the call, [rows, tokens].
    """

    forms: Sequence[LayerForm]
    positions: Tensor

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, scaling: float) -> Tensor:
        """The attention output of one layer.

        Args:
            layer: index of the layer, 0 first.
            queries: [rows, heads, tokens, head_dim], after the rotary embedding.
            keys: [rows, kv_heads, tokens, head_dim], of the new tokens alone.
            values: [rows, kv_heads, tokens, head_dim], of the new tokens alone.
            scaling: factor on query-key products.

        Returns:
            [rows, tokens, heads, head_dim].
        """
        ...


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **keywords: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: the signature is that of ``AttentionInterface``.

    Raises:
        ModelError: the call asks for something that the engine does not compute, or came without an engine.
    """
    engine: LayerAttention | None = keywords.get(ENGINE)
    family = type(module).__name__
    if engine is None:
        raise WithoutEngine(
            f"{family} was called without the engine, which has taken the place of its attention: "
            "model.set_attn_implementation('sdpa') gives that back"
        )
    if keywords.get("position_bias") is not None:
        raise ModelError(
            f"{family} asks for a position bias (position_bias={_brief(keywords['position_bias'])}): use another family"
        )
    if attention_mask is not None:
        raise ModelError(f"{family} passes an attention mask of its own: use a full-attention checkpoint")
    if scaling is None:
        raise ModelError(f"{family} does not say how it scales attention logits: use another family")
    if key.shape[-1] != value.shape[-1] or query.shape[-1] != key.shape[-1]:
        raise ModelError(
            f"{family} has keys of {key.shape[-1]} and values of {value.shape[-1]} dimensions: "
            "latent attention is not supported"
        )
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise ModelError(f"{family} does not number its layers (layer_idx={index}): use another family")
    form = engine.forms[index]
    _check_call(form, keywords, f"layer {index} of {family}")
    if form.temperature is not None:
        query = form.temperature.moved(query, engine.positions)
    return engine.attend(index, query, key, value, scaling), None


def _check_call(form: LayerForm, keywords: Mapping[str, Any], layer: str) -> None:
    """Check that a layer asks for what it is computed by.

    Raises:
        ModelError: with what it asks for and what its configuration says.
    """
    window = form.window.size if form.window is not None and form.window.kind == "sliding" else None
    for keyword, meaning, told in (
        ("sliding_window", "sliding-window attention", window),
        ("softcap", "soft-capped attention logits", form.softcap),
        ("s_aux", "attention sinks in the softmax", form.sinks),
    ):
        asked = keywords.get(keyword)
        if _identity(asked) != _identity(told):
            raise ModelError(
                f"{layer} asks for {meaning} of {keyword}={_brief(asked)}, and the model's own configuration and "
                f"weights say {_brief(told)}: mend its config.json, or use another family"
            )


def _identity(value: object) -> object:
    """A number as it is, a tensor by its place in memory: comparing all of its numbers would wait for the device."""
    return (value.data_ptr(), value.shape) if isinstance(value, Tensor) else value


def masked_attention(
    queries: Tensor, keys: Tensor, values: Tensor, softmax: Softmax, mask: Tensor | None = None
) -> Tensor:
    """Attention of some queries to some entries, by the fused function where the softmax is an ordinary one.

    Args:
        queries: [rows, H, tokens, D].
        keys: [rows, Hk, entries, D].
        values: [rows, Hk, entries, D].
        softmax: how products become weights.
        mask: [tokens, entries], True where an entry is seen; None if all are.

    Returns:
        [rows, H, tokens, D].
    """
    rows, heads, tokens, dim = queries.shape
    kv_heads, entries = keys.shape[1], keys.shape[2]
    # The query heads of one kv head take the place of further query tokens.
    grouped = queries.reshape(rows, kv_heads, -1, dim)
    if softmax.is_plain:
        mask = None if mask is None else mask.repeat(heads // kv_heads, 1)
        out = fused_attention(grouped, keys, values, scale=softmax.scaling, attn_mask=mask)
        return out.reshape(queries.shape)
    logits = softmax.capped_((grouped @ keys.transpose(2, 3)).reshape(rows, heads, tokens, entries) * softmax.scaling)
    if mask is not None:
        logits.masked_fill_(~mask, torch.finfo(logits.dtype).min)
    weights = softmax.weights(logits).reshape(rows, kv_heads, -1, entries)
    return (weights @ values).reshape(queries.shape)


def fused_attention(queries: Tensor, keys: Tensor, values: Tensor, **keywords: Any) -> Tensor:
    """``scaled_dot_product_attention`` of torch, without cuDNN.

    On a CUDA device cuDNN takes long to prepare for a sequence length that it has not seen, and a growing cache has a
    new length at every step.
    """
    if queries.device.type != "cuda":
        return functional.scaled_dot_product_attention(queries, keys, values, **keywords)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        return functional.scaled_dot_product_attention(queries, keys, values, **keywords)


def _brief(value: object) -> str:
    return f"tensor of {tuple(value.shape)}" if isinstance(value, Tensor) else str(value)


def install(model: PreTrainedModel) -> None:
    """Make ``model`` call ``attention`` in every layer, and its rotary embedding go by the length of each row.

    No mask function is registered under this name, so transformers builds no tokens x tokens mask. Prompts must
    therefore come one at a time, without padding.

    Raises:
        ModelError: the model does not use transformers' attention interface.
    """
    from transformers import AttentionInterface  # imports all of modeling, which reading a configuration does not need

    AttentionInterface.register(NAME, attention)
    follow_row_lengths(model)
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{type(model).__name__} does not use the attention interface of transformers: use another family"
        ) from error


def refuse_uneven(config: PretrainedConfig, name: str) -> None:
    """Refuse a configuration whose layers differ in the size of their heads, which transformers has no number for.

    Raises:
        ModelError: the layers differ.
    """
    try:
        getattr(config, "head_dim", None)
    except RuntimeError as error:
        raise ModelError(
            f"model={name} ({config.model_type}) has layers that differ in head_dim: use a family whose layers do not"
        ) from error


def refuse_config(config: PretrainedConfig, name: str) -> None:
    """Refuse a configuration whose attention the engine cannot reproduce exactly.

    Args:
        config: the model's configuration.
        name: the model's name, for the message.

    Raises:
        ModelError: with the family, the setting and its value.
    """

    def refuse(setting: str, value: object, why: str) -> None:
        raise ModelError(
            f"model={name} ({config.model_type}) has {setting}={value}: {why}; use a full-attention checkpoint"
        )

    refuse_uneven(config, name)
    if getattr(config, "is_encoder_decoder", False):
        refuse("is_encoder_decoder", True, "only decoder-only models are evaluated")
    if getattr(config, "text_config", None) is not None:
        refuse("text_config", "…", "only text models are evaluated, such as the one in it")
    if others := sorted(set(layer_types(config)) - set(_LAYER_TYPES)):
        refuse("layer_types", "+".join(others), "these layers keep no keys and values of single tokens")
    if shared := getattr(config, "num_kv_shared_layers", None):
        refuse("num_kv_shared_layers", shared, "these layers have no keys and values of their own")
    if getattr(config, "kv_lora_rank", None) is not None:
        refuse("kv_lora_rank", config.kv_lora_rank, "its attention is not plain softmax attention")
    for attends, setting in (("sliding_attention", "sliding_window"), ("chunked_attention", "attention_chunk_size")):
        size = getattr(config, setting, None)
        if attends in layer_types(config) and not (isinstance(size, int) and size > 0):
            refuse(setting, size, f"its layers of layer_types={attends} have no window")


def check_layers(seen: Sequence[int], count: int, name: str, where: str) -> None:
    """Check after a forward that every layer went through ``attention`` exactly once.

    Args:
        seen: indices of the layers that did, in the order of the calls.
        count: number of layers of the model.
        name: the model's name, for the message.
        where: what was being computed, for the message.

    Raises:
        ModelError: a layer is missing, or there were more calls than layers.
    """
    missing = sorted(set(range(count)) - set(seen))
    if missing:
        raise ModelError(
            f"model={name}: attention of layer {', '.join(map(str, missing))} of {count} did not reach the engine "
            f"during {where}, so nothing would be compressed there: "
            "use a family that calls transformers' attention interface in every layer"
        )
    if len(seen) != count:
        raise ModelError(
            f"model={name}: {len(seen)} attention calls for {count} layers during {where}: "
            "shared layers are not supported"
        )
