"""The size of a model's weights in memory, read from the headers of their files."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from harness.engine.gguf import is_gguf
from harness.engine.gguf_header import Broken, read_header
from harness.engine.model_spec import ModelSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_LONGEST_HEADER = 10**8  # as the safetensors library has it


def weights_bytes(spec: ModelSpec, config: PretrainedConfig) -> int | None:
    """Bytes of a model's weights in the dtype that they are loaded in, over all processes and cards.

    Args:
        spec: the model.
        config: its configuration.

    Returns:
        None if its files are not on this machine or cannot be read; loading them will say why.
    """
    try:
        if is_gguf(spec.path):
            elements = sum(tensor.elements for tensor in read_header(Path(spec.path)).tensors.values())
        else:
            elements = sum(map(_elements, _folder(spec).glob("*.safetensors")))
    except (Broken, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return elements * spec.torch_dtype(config).itemsize or None


def _folder(spec: ModelSpec) -> Path:
    """The folder of the weights, which for a hub id is that of the hub's cache."""
    if spec.is_local:
        return Path(spec.path)
    from huggingface_hub import snapshot_download  # here, because a model in a folder does not need it

    return Path(snapshot_download(spec.path, revision=spec.revision, local_files_only=True))


def _elements(file: Path) -> int:
    """Number of elements of all tensors in a safetensors file."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError("no header of a safetensors file")
        header = json.loads(stream.read(length))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
