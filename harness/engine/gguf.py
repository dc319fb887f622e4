"""Models in GGUF files, read through transformers and the package ``gguf``.

Reading one takes long, because its vocabulary is read value by value and its weights are dequantized. So what was read
is kept under the user's cache folder: configuration and tokenizer, and the weights of each dtype as safetensors. From
then on the model loads like a local folder. What is kept is known by the hash of the file and by the version of
transformers, and is put in its place as a whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import lru_cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer

from harness.engine.gguf_header import Broken, Header, read_header
from harness.errors import ModelError
from harness.folders import cache_folder
from harness.lock_files import waited_for
from harness.text import plain

_REMEDY = "give a whole GGUF file of a causal language model, or a folder with safetensors"
_FILE = "model.gguf"
_LONGEST = 200
"""Characters of what a file says that an error shows."""
_UNREAD = {
    "rope.scaling.factor": "scaled positions",
    "attention.sliding_window": "sliding-window attention",
    "attn_logit_softcapping": "soft-capped attention logits",
}
"""Metadata that change attention, and that transformers does not read from the files of most families."""


def is_gguf(path: str) -> bool:
    """Whether a model's path names a GGUF file."""
    return path.lower().endswith(".gguf")


def file_sha256(path: str) -> str:
    """The SHA-256 of a file, as ``sha256sum`` prints it.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        state = os.stat(path)
        return _sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        raise ModelError(f"model.path={path} cannot be read ({error.strerror}): give a readable file") from error


@lru_cache(maxsize=8)
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_folder(path: str, remedy: str = "") -> Path:
    """The folder with the configuration and the tokenizer of a GGUF file, made if it is not there yet.

    Args:
        path: the file.
        remedy: what to do if there is no such file; "" for the common advice.

    Raises:
        ModelError: the file is missing, broken, or not supported.
    """
    if not Path(path).is_file():
        fact = "is not there" if not Path(path).exists() else "is not a file"
        raise ModelError(f"model.path={path} {fact}: {remedy or 'give the path of a GGUF file'}")
    folder = cache_folder() / "gguf" / f"{file_sha256(path)}-{transformers.__version__}"
    if not (folder / "config.json").is_file():
        _check(path)
        _make(folder, path, lambda alone, to: _write_config(alone, to, path))
    return folder


def weights_folder(path: str, dtype: torch.dtype) -> Path:
    """The folder with the dequantized weights of a GGUF file as safetensors, made if it is not there yet.

    Args:
        path: the file.
        dtype: dtype of the weights.

    Raises:
        ModelError: the file is broken or not supported, or weights are missing in it.
    """
    config_file = model_folder(path) / "config.json"
    folder = config_file.with_name(str(dtype).removeprefix("torch."))
    if not folder.is_dir():
        _make(folder, path, lambda alone, to: _write_weights(alone, to, path, dtype, config_file))
    return folder


def _check(path: str) -> None:
    """Refuse a file that is broken, or whose attention would not be reproduced.

    Raises:
        ModelError: in one line, before anything that takes long.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        header = read_header(Path(path))
        if (parts := header.metadata.get("split.count", 1)) not in (0, 1):
            raise Broken(f"is one of {parts} parts, which llama-gguf-split --merge makes one file of")
        if not header.tensors:
            raise Broken("holds no weights")
        end, kinds = os.path.getsize(path), {kind.value for kind in GGMLQuantizationType}
        for name, tensor in header.tensors.items():
            if tensor.type not in kinds:
                raise Broken(f"has {name} in the unknown quantization type {tensor.type}")
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
            if tensor.offset + tensor.elements // block * size > end:
                raise Broken(f"ends within its weights ({name})")
        _check_model(header)
    except Broken as error:
        raise ModelError(f"model.path={path} {plain(str(error))[:_LONGEST]}: {_REMEDY}") from error
    except OSError as error:
        raise ModelError(f"model.path={path} cannot be read ({error.strerror}): give a readable file") from error


def _check_model(header: Header) -> None:
    """Refuse a file of which transformers would read less than it says.

    Raises:
        Broken: names what is missing or would be ignored.
    """
    family = header.metadata.get("general.architecture")
    if not isinstance(family, str):
        raise Broken("does not say of which architecture it is (general.architecture)")
    if "tokenizer.ggml.tokens" not in header.metadata:
        raise Broken("holds no vocabulary (tokenizer.ggml.tokens)")
    for key, meaning in _UNREAD.items():
        value = header.metadata.get(f"{family}.{key}")
        if value and (key, value) != ("rope.scaling.factor", 1.0):
            raise Broken(f"asks for {meaning} ({family}.{key}={value}), which is not read from GGUF files")
    if scaled := next((name for name in header.tensors if name.startswith("rope_")), None):
        raise Broken(f"asks for scaled positions ({scaled}), which are not read from GGUF files")


def _write_config(alone: Path, to: Path, path: str) -> None:
    with _one_line(path):
        config = AutoConfig.from_pretrained(alone, gguf_file=_FILE, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=_FILE, trust_remote_code=False)
        config.save_pretrained(to)
        tokenizer.save_pretrained(to)


def _write_weights(alone: Path, to: Path, path: str, dtype: torch.dtype, config_file: Path) -> None:
    from transformers import AutoModelForCausalLM  # imports all of modeling, which a dry run does not need

    with _one_line(path):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            alone, gguf_file=_FILE, dtype=dtype, output_loading_info=True, trust_remote_code=False
        )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"model.path={path} has no weights for {missing[0]} and {len(missing) - 1} more: {_REMEDY}")
    weights: dict[str, torch.Tensor] = {}
    for name, weight in model.state_dict().items():
        if weight.dtype != dtype:
            raise ModelError(f"model.path={path} has {name} that stays quantized in transformers: {_REMEDY}")
        # A head that is tied to the embeddings is the same tensor and is kept once.
        if all(weight.data_ptr() != known.data_ptr() for known in weights.values()):
            weights[name] = weight.contiguous()
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(config_file, to)  # transformers looks for it beside weights


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Make one line of whatever transformers and gguf raise, and keep their progress bar out of logs."""
    quiet = nullcontext() if sys.stderr.isatty() else redirect_stderr(StringIO())
    try:
        with quiet:
            yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # these parsers raise anything at a file that is not as they expect
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:_LONGEST]
        raise ModelError(f"model.path={path} cannot be read by transformers ({reason}): {_REMEDY}") from error


def _make(folder: Path, path: str, write: Callable[[Path, Path], None]) -> None:
    """Make a folder and put it in its place as a whole; other processes wait for it.

    Args:
        folder: its path.
        path: the GGUF file.
        write: called with a folder in which ``_FILE`` is that file and nothing else is, and with the folder to fill.

    Raises:
        ModelError: the cache folder cannot be written, or ``write`` raised it.
        StoreError: a process of another machine keeps others from writing it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with waited_for(folder.parent / f"{folder.name}.lock"):
            if folder.is_dir():
                return
            for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            work = Path(mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                (work / "alone").mkdir()
                (work / "alone" / _FILE).symlink_to(Path(path).resolve())
                (work / "made").mkdir()
                write(work / "alone", work / "made")
                (work / "made").rename(folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"what was read of model.path={path} cannot be kept in {folder.parent} ({error.strerror}): make room, or "
            "set XDG_CACHE_HOME to a folder that can be written"
        ) from error
