"""JSON lines, read and checked line by line, so that an error names the line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from msgspec import Meta

from harness.errors import DataError
from harness.values import fits
from tasks.checks import short

Text = Annotated[str, Meta(pattern=r"^[^\ud800-\udfff]*\Z")]
"""A text that can be encoded as UTF-8: JSON can contain a lone surrogate, which no tokenizer accepts."""


class Kind(NamedTuple):
    """The type that a field of a line must have.

    Attributes:
        type: the type, as an annotation for msgspec.
        words: the type in words, for errors: ``a list of texts``.
    """

    type: Any
    words: str


TEXT, TEXTS = Kind(Text, "a text"), Kind(list[Text], "a list of texts")


def read_lines(raw: bytes, file: object, noun: str, remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file, each with its position: ``line 3 of trec.jsonl``. Empty lines are skipped.

    Args:
        raw: contents of the file.
        file: name or path of the file, for errors.
        noun: what a line contains, for errors: ``record``.
        remedy: end of error messages.

    Raises:
        DataError: a line is not a JSON object.
    """
    # Only line feeds end a record: str.splitlines would also split at separators inside some texts.
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {file}"
        try:
            values = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{where} is not UTF-8 at byte {error.start}: {remedy}") from error
        except (ValueError, RecursionError) as error:
            reason = str(error).split(":")[0] if isinstance(error, json.JSONDecodeError) else type(error).__name__
            raise DataError(f"{where} is not JSON ({reason}), as in a file that was cut: {remedy}") from error
        if not isinstance(values, dict):
            raise DataError(f"{where} is {short(values)}, not a {noun}: {remedy}")
        yield where, values


def check_fields(values: Mapping[str, Any], kinds: Mapping[str, Kind], where: str, remedy: str) -> None:
    """Refuse a line that lacks a field or has one of another type; other fields may be anything.

    Args:
        values: the object on the line.
        kinds: the type of each field.
        where: beginning of the error message.
        remedy: end of the error message.

    Raises:
        DataError: names the first such field.
    """
    for field, (kind, words) in kinds.items():
        if field not in values:
            raise DataError(f"{where} has no field {field!r}: {remedy}")
        if not fits(values[field], kind):
            raise DataError(f"{where} has {field}={short(values[field])}, which is not {words}: {remedy}")
