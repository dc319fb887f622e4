"""What comes from a model's folder is foreign input: whatever is wrong with it is one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from harness.engine.hub import advice
from harness.engine.quiet import quiet
from harness.errors import KvgaugeError, ModelError
from harness.text import plain
from harness.values import fits

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_Number = Annotated[int, Meta(ge=1, lt=2**31)]
# Layers are made before weights are read, and 20,000 take minutes and all memory; large models have about 130.
_Layers = Annotated[int, Meta(ge=1, le=1000)]
_TokenIds = int | Sequence[int] | None
_SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size")
_OPTIONAL_SIZES = ("num_key_value_heads", "head_dim", "max_position_embeddings")
_LONGEST_VALUE = 80


@contextmanager
def reading(path: str, what: str, remedy: str, hub: bool) -> Iterator[None]:
    """Turn every exception of the body into one line, and let transformers log errors alone.

    Args:
        path: the model's path.
        what: what fails, to follow the path: ``cannot be read``.
        remedy: what to do.
        hub: whether the path is a hub id, whose own errors say more.

    Raises:
        ModelError: the body raised an exception.
    """
    try:
        with quiet():
            yield
    except KvgaugeError:
        raise
    except BaseException as error:  # of any of the libraries that read the files
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of tokenizers, in Rust
            raise
        if hub and (known := advice(error, path)) is not None:
            what, remedy = known
            raise ModelError(f"model.path={path} {what}: {remedy}") from error
        raise ModelError(f"model.path={path} {what} ({first_line(error)}): {remedy_for(error, remedy)}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its type where it has none or a bare word."""
    lines = str(error).strip().splitlines() or [""]
    text = plain(" ".join(lines[:2] if lines[0].endswith(":") else lines[:1]))[:200]
    return text if " " in text else f"{type(error).__name__}{f': {text}' if text else ''}"


def remedy_for(error: BaseException, otherwise: str) -> str:
    """What to do about an error of transformers at reading a model, by what it says."""
    text = str(error)
    if "trust_remote_code" in text or "contains custom code" in text:
        return "no code of a checkpoint is run: use a model whose family transformers has"
    if "does not recognize this architecture" in text or "Unrecognized model" in text:
        return "use a family that transformers has, or the release of transformers that has it"
    if "does not support an attention implementation" in text:
        return "use another family, whose attention can be replaced"
    if isinstance(error, ImportError):
        return "install what it names, or use a checkpoint that needs none"
    if isinstance(error, OSError) and "safetensors" in text:
        return "kvgauge reads safetensors and GGUF weights only: convert others with save_pretrained"
    return otherwise


def check_config(path: str, config: PretrainedConfig) -> None:
    """Refuse a configuration whose sizes are no sizes or whose end tokens are no token ids.

    Raises:
        ModelError: names the first such field.
    """
    for field in (*_SIZES, *_OPTIONAL_SIZES):
        value = getattr(config, field, None)
        if not fits(value, _Number if field in _SIZES else _Number | None):
            _refuse(path, "config.json", field, value, "a whole number of 1 or more")
    if not fits(config.num_hidden_layers, _Layers):
        _refuse(path, "config.json", "num_hidden_layers", config.num_hidden_layers, "a number of layers, 1 to 1000")
    if config.num_attention_heads % (getattr(config, "num_key_value_heads", None) or 1):
        _refuse(
            path, "config.json", "num_key_value_heads", config.num_key_value_heads,
            f"a divisor of its {config.num_attention_heads} heads",
        )  # fmt: skip
    for parameters in ("rope_parameters", "rope_scaling"):
        value = getattr(config, parameters, None)
        if not fits(value, dict[str, Any] | None):
            _refuse(path, "config.json", parameters, value, "a mapping")


def check_end_ids(path: str, file: str, value: object) -> None:
    """Refuse end tokens that are neither a token id nor a list of them.

    Raises:
        ModelError: names the file and the value.
    """
    if not fits(value, _TokenIds):
        _refuse(path, file, "eos_token_id", value, "a token id or a list of them")


def _refuse(path: str, file: str, field: str, value: object, wanted: str) -> None:
    shown = plain(repr(value))
    shown = shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]}…"
    raise ModelError(f"{file} of model.path={path} has {field}={shown}, which is not {wanted}: mend or fetch it again")
