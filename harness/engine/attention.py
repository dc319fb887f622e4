"""The attention function that kvgauge registers with transformers, and the guards around it.

The model calls ``attention`` in every layer. It passes queries, keys and values to the ``LayerAttention`` that came
with the forward call: a prefill or a decoding step. No model class is patched and no cache class is subclassed. Three
guards make sure that no layer is missed silently: ``refuse_config`` before any weight is read, a check of the keywords
of each call, and ``check_layers`` after each forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.errors import ModelError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

NAME = "kvgauge"
ENGINE = "kvgauge_engine"

# Keywords by which a model family asks for something other than plain softmax attention over all earlier tokens.
_UNSUPPORTED_KEYWORDS = {
    "sliding_window": "sliding-window attention",
    "softcap": "soft-capped attention logits",
    "s_aux": "attention sinks in the softmax",
    "position_bias": "a position bias",
}


class WithoutEngine(ModelError):
    """A model was called without the engine, by others or because its classes do not hand it on."""


class LayerAttention(Protocol):
    """Computes the attention of one forward call, layer by layer."""

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
    for keyword, meaning in _UNSUPPORTED_KEYWORDS.items():
        if keywords.get(keyword) is not None:
            raise ModelError(
                f"{family} asks for {meaning} ({keyword}={_brief(keywords[keyword])}): use a full-attention checkpoint"
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
    return engine.attend(index, query, key, value, scaling), None


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
    """Make ``model`` call ``attention`` in every layer.

    No mask function is registered under this name, so transformers builds no tokens x tokens mask. Prompts must
    therefore come one at a time, without padding.

    Raises:
        ModelError: the model does not use transformers' attention interface.
    """
    from transformers import AttentionInterface  # imports all of modeling, which reading a configuration does not need

    AttentionInterface.register(NAME, attention)
    try:
        model.set_attn_implementation(NAME)
    except (ValueError, NotImplementedError) as error:
        raise ModelError(
            f"{type(model).__name__} does not use the attention interface of transformers: use another family"
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

    if getattr(config, "is_encoder_decoder", False):
        refuse("is_encoder_decoder", True, "only decoder-only models are evaluated")
    if getattr(config, "text_config", None) is not None:
        refuse("text_config", "…", "only text models are evaluated")
    layer_types: Sequence[str] | None = getattr(config, "layer_types", None)
    others = sorted({kind for kind in layer_types or () if kind != "full_attention"})
    if others:
        refuse("layer_types", "+".join(others), "these layers do not attend to all earlier tokens")
    if (
        layer_types is None
        and getattr(config, "use_sliding_window", True)
        and getattr(config, "sliding_window", None) is not None
    ):
        refuse("sliding_window", config.sliding_window, "these layers do not attend to all earlier tokens")
    for setting in ("attn_logit_softcapping", "attention_chunk_size", "kv_lora_rank"):
        if getattr(config, setting, None) is not None:
            refuse(setting, getattr(config, setting), "its attention is not plain softmax attention")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    # Either one set of parameters, or one for each layer type.
    for parameters in (rope, *rope.values()):
        kind = parameters.get("rope_type") or parameters.get("type") if isinstance(parameters, dict) else None
        if kind in ("dynamic", "longrope"):
            refuse(
                "rope_type",
                kind,
                "it re-scales positions by the longest row of a batch, so that rows would change each other",
            )


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
