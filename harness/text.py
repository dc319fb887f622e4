"""Names that can become folders, texts made safe to show or packed, and tokens decoded as the published runs did."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plain(text: str) -> str:
    """The text on one line, without characters that move the cursor, change colours or reverse the reading order."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(c if c.isprintable() else "?" for c in line)


def size_text(size: int) -> str:
    """A number of bytes: 52 MB, 4.3 GB, 141 GB."""
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 100e9 else f"{size / 1e9:,.0f} GB"


def packed(value: Any) -> str:
    """A value as JSON in ASCII, through gzip, in base64, as the page's script unpacks it.

    Equal values give equal texts.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode("ascii"), 6, mtime=0)).decode()


def unpacked(text: str, most: int) -> Any:
    """The value that ``packed`` made a text of.

    Args:
        text: the text, which may come from anywhere.
        most: most bytes that it may unpack to.

    Raises:
        ValueError: it is no packed value, or a larger one.
    """
    reader = zlib.decompressobj(wbits=31)
    try:
        value = reader.decompress(base64.b64decode(text, validate=True), most)
    except zlib.error as error:
        raise ValueError("not packed") from error
    if not reader.eof:
        raise ValueError("torn, or too large")
    return json.loads(value)


_SPACED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip
"""What the clean-up of spaces replaces, one after the other: the documented rule of transformers'
``clean_up_tokenization_spaces`` (https://github.com/huggingface/transformers, Apache-2.0)."""


def clean_up_spaces(text: str) -> str:
    """A decoded text without spaces before punctuation and English contractions."""
    for spaced, joined in _SPACED:
        text = text.replace(spaced, joined)
    return text


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], clean_up: bool | None) -> str:
    """The text of tokens without special tokens.

    Args:
        tokenizer: the tokenizer.
        ids: token ids.
        clean_up: whether spaces are cleaned up; None to leave that to the installed version of transformers, the
            current one of which does it for no BPE tokenizer, even if the tokenizer's files ask for it.
    """
    if clean_up is None:
        return cast("str", tokenizer.decode(list(ids), skip_special_tokens=True))
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return clean_up_spaces(cast("str", text)) if clean_up else cast("str", text)


NAME = "[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"
"""Regular expression for names of folders that are valid on every system and cannot lead out of their parent."""
_RESERVED = ("report", "published")


def shared_tokens(whole: Sequence[object], context: Sequence[object]) -> int:
    """Number of tokens, or of characters, with which a prompt begins as its context alone does.

    The last token of a context can reach into the question; it belongs to the question then, as the context says
    nothing of it.

    Args:
        whole: token ids of the whole prompt, or its text.
        context: the same of its context alone.
    """
    pairs = zip(whole, context, strict=False)
    return next((index for index, (one, other) in enumerate(pairs) if one != other), min(len(whole), len(context)))


def check_name(value: object, setting: str) -> str:
    """Return ``value`` if it can name a folder on every system.

    Args:
        value: a value from the configuration.
        setting: name of the setting, for the message: ``model.name``.

    Raises:
        ConfigError: it is not a text of 1 to 128 letters, digits, '.', '_', '+' and '-', a letter or digit first.
    """
    if not isinstance(value, str) or not re.fullmatch(NAME, value):
        shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
        raise ConfigError(
            f"{setting}={shown} cannot name a folder: "
            "use at most 128 letters, digits, '.', '_', '+' and '-', a letter or digit first"
        )
    return value


def label_of(path: str) -> str:
    """A label of a file's name without its ending: ``my data.jsonl`` is ``my-data``; ``data`` if nothing is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-._")[:128].rstrip("-._") or "data"


def check_model_name(value: object, setting: str) -> str:
    """Return ``value`` if it can name a model's folder in the results.

    Args:
        value: a value from the configuration.
        setting: name of the setting, for the message.

    Raises:
        ConfigError: as in ``check_name``, or it is the name of another folder in the results.
    """
    name = check_name(value, setting)
    if name in _RESERVED:
        raise ConfigError(f"{setting}={name} is the name of another folder in the results: use another {setting}")
    return name
