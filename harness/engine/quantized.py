"""Checkpoints whose weights are quantized: which of them can be read here, and what they need."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from harness.errors import ConfigError, ModelError
from harness.text import plain

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("optimum", "gptqmodel"),
    "awq": ("gptqmodel",),
}
"""Of methods with 4-bit or 8-bit weights, the packages with which transformers reads them on a CUDA device."""
_DEQUANTIZED = ("fp8", "mxfp4")
"""Methods whose weights transformers can read without a package and, where no card can use them, dequantizes."""


def quantization_of(config: PretrainedConfig) -> dict[str, Any] | None:
    """What a configuration says of the quantization of its weights; None if they are not quantized."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    return dict(found if isinstance(found, Mapping) else found.to_dict())


def is_packed(config: PretrainedConfig) -> bool:
    """Whether weights stay quantized in memory, and are placed on their device while they are read."""
    return (quantization_of(config) or {}).get("quant_method") in _PACKAGES


def check_quantization(path: str, config: PretrainedConfig, device: torch.device) -> None:
    """Refuse quantized weights that cannot be read here, before any of them is.

    Args:
        path: the model's path.
        config: its configuration.
        device: the device that it is to be loaded onto.

    Raises:
        ConfigError: the weights need a CUDA device.
        ModelError: the method is none of those that are known, or a package is missing.
    """
    if (quantization := quantization_of(config)) is None:
        return
    method = str(quantization.get("quant_method"))
    if method in _DEQUANTIZED:
        return
    if method not in _PACKAGES:
        raise ModelError(
            f"model.path={path} has weights quantized by {plain(method)[:80]}, which is none of the kinds known here: "
            f"use one of {', '.join((*_PACKAGES, *_DEQUANTIZED))}, a GGUF file, or the unquantized model"
        )
    if device.type != "cuda":
        raise ConfigError(
            f"model.path={path} has weights quantized by {method}, which are read on a CUDA device alone, and "
            f"model.device is {device}: use a GGUF file of the model, or the unquantized one"
        )
    if missing := [name for name in _PACKAGES[method] if find_spec(name) is None]:
        raise ModelError(
            f"model.path={path} has weights quantized by {method}, which need the package "
            f"{missing[0].replace('_', '-')}: pip install {' '.join(missing).replace('_', '-')}"
        )
