"""Q-Filters: the tokens whose keys lie along the direction that queries of their head prefer.

Claim: the queries of a head share one direction, found once per model, which tells a key's attention (Godey et al.,
    arXiv:2503.02812).
Source: kvpress 0.5.5, QFilterPress.
Differs:
    - from kvpress: filters are read from a file that is named; kvpress downloads them by the model's name.
    - from kvpress: a share of the prompt is rounded to a whole number, not cut down.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from harness.compression.method import LayerState, Method, Scorer
from harness.errors import ConfigError


@lru_cache(maxsize=8)
def read_filters(file: str) -> Tensor:
    """The filters [layers, kv_heads, head_dim] of a model, in float32.

    Args:
        file: a safetensors file with one tensor, ``q_filters``.

    Raises:
        ConfigError: there is no such file, or it is of another form.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"file={file} (method=q_filters) is no file: give the safetensors file of the model's filters"
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"file={file} (method=q_filters) is no safetensors file: download it again") from error
    filters = tensors.get("q_filters")
    if filters is None or filters.ndim != 3 or not torch.isfinite(filters).all():
        raise ConfigError(
            f"file={file} (method=q_filters) has no finite tensor q_filters [layers, kv heads, head_dim]: "
            "give the file of the model's filters"
        )
    return filters.float()


@dataclass(frozen=True)
class AlongFilter(Scorer):
    """The negated product of each key with the filter of its head.

    Attributes:
        file: see ``read_filters``.
    """

    window: ClassVar[int] = 0
    file: str

    def score(self, layer: LayerState) -> Tensor:
        """[kv_heads, tokens] in float32.

        Raises:
            ConfigError: the filters are those of another model.
        """
        filters = read_filters(self.file)
        kv_heads, _, size = layer.keys.shape
        if filters.shape != (layer.count, kv_heads, size):
            raise ConfigError(
                f"file={self.file} (method=q_filters) has filters of shape {list(filters.shape)} for a model of "
                f"{[layer.count, kv_heads, size]} [layers, kv heads, head_dim]: give the file of this model"
            )
        along = filters[layer.index].to(layer.keys.device)
        return -(layer.keys.float() * along[:, None]).sum(dim=-1)


@dataclass(frozen=True)
class QFilters(Method):
    """Keep the tokens whose keys lie along the filter of their head.

    Attributes:
        file: path of the model's filters.

    Raises:
        ConfigError: there is no such file, or it is of another form.
    """

    file: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file is None:
            raise ConfigError(
                f"file=null (method={self.label}): name the model's filters by method.{self.label}.file=<path>"
            )
        read_filters(self.file)

    @property
    def scorer(self) -> AlongFilter:
        """The negated product of keys with filters."""
        assert self.file is not None
        return AlongFilter(self.file)
