"""Hashes of models: of a model's folder, or of weights in memory."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_HASHED_WHOLE_BYTES, _HASHED_PART_BYTES = 256 * 2**20, 64 * 2**10


def folder_sha256(folder: Path) -> str:
    """Hash of a model folder: configuration, tokenizer files and weights.

    Of a weights file above 256 MiB, only a part of every tensor is read.
    """
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config.pop("_name_or_path", None)
    config.pop("transformers_version", None)
    digest.update(json.dumps(config, sort_keys=True).encode())
    for file in sorted(
        [*folder.glob("*.safetensors"), *folder.glob("tokenizer*.json"), *folder.glob("tokenizer.model")]
    ):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= _HASHED_WHOLE_BYTES or file.suffix != ".safetensors":
                digest.update(stream.read())
            else:
                _hash_parts(stream, digest)
    return digest.hexdigest()


def _hash_parts(stream: BinaryIO, digest: hashlib._Hash) -> None:
    """Hash the header of a safetensors file, and the beginning and the middle of every tensor.

    So a change of any one tensor as a whole is noticed.
    """
    length = int.from_bytes(stream.read(8), "little")
    header = stream.read(length)
    digest.update(header)
    for name, tensor in sorted(json.loads(header).items()):
        if name == "__metadata__":
            continue
        start, stop = tensor["data_offsets"]
        for offset in (start, (start + stop) // 2):
            stream.seek(8 + length + offset)
            digest.update(stream.read(min(_HASHED_PART_BYTES, stop - offset)))


def memory_sha256(model: PreTrainedModel) -> str:
    """Hash of a loaded model's weights: name, shape, dtype, and the beginning and middle of every tensor.

    It differs from the hash of the folder that the model may have come from.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        part = max(1, _HASHED_PART_BYTES // tensor.element_size())
        for start in (0, len(flat) // 2):
            numbers = flat[start : start + part].cpu().contiguous()
            digest.update(numbers.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
