"""Dataclasses that check themselves: every field must fit its annotation, or a one-line error says why not.

An annotation holds the type, the range (``msgspec.Meta``) and the choices (``Literal``) of a setting. If the error text
made from these would not help a user, it also holds a ``Refusal``. It is their only place: error texts, completion and
the tests of the documentation read them from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from harness.errors import ConfigError

LARGEST = 2**53
"""Largest number in a file, up to which all readers of JSON agree."""
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Size = Annotated[int, Meta(ge=1, le=LARGEST)]
_T = TypeVar("_T")
_NOUNS: Mapping[object, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    Sequence: "a list",
    Mapping: "a mapping",
}


class Refusal(NamedTuple):
    """The error text for a value that does not fit; a part of an annotation.

    Attributes:
        fact: what is wrong, to follow the setting and its value: ``names no folder``.
        remedy: what to give instead.
    """

    fact: str
    remedy: str


def check(value: object, group: str = "", names: Mapping[str, str] | None = None) -> None:
    """Refuse a dataclass with a field that does not fit its annotation; called in its ``__post_init__``.

    Args:
        value: the dataclass.
        group: the group of settings that the fields belong to; "" for settings without a group.
        names: the names of settings that are not called like their field, by field.

    Raises:
        ConfigError: with the first field that does not fit.
    """
    for field, kind in field_types(type(value)).items():
        given = getattr(value, field)
        if not fits(given, kind):
            setting = ".".join(filter(None, [group, (names or {}).get(field, field)]))
            fact, remedy = _refusal(kind)
            raise ConfigError(f"{setting}={given} {fact}: {remedy}")


def made(kind: type[_T], values: Mapping[str, Any], group: str) -> _T:
    """Make a dataclass from a group of settings, which must have exactly its fields.

    Args:
        kind: the dataclass.
        values: the settings from the configuration, by field.
        group: the group's name.

    Raises:
        ConfigError: a setting is missing or unknown, or does not fit its annotation.
    """
    known = field_types(kind)
    if wrong := set(values) ^ set(known):
        raise ConfigError(
            f"{group} is to have {', '.join(sorted(known))}, no more and no less, not {wrong.pop()}: "
            "--cfg job prints it"
        )
    return kind(**values)


def fits(value: object, kind: Any) -> bool:
    """Whether a value has the type of an annotation and is within its ranges and choices.

    Nothing is converted, and ``True`` is not a number. An object of a subclass has the type of the class.
    """
    if classes := tuple(part for part in get_args(kind) or (kind,) if is_dataclass(part)):
        return isinstance(value, cast("tuple[type, ...]", classes)) or (value is None and type(None) in get_args(kind))
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def field_types(kind: Any) -> Mapping[str, Any]:
    """The annotations of a dataclass by field, with their ``Annotated`` parts."""
    return _field_types(kind)


@cache  # many small objects are checked for each prompt
def _field_types(kind: Any) -> Mapping[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def choices(kind: Any) -> list[str]:
    """The choices of an annotation as a configuration writes them, with ``null`` for None first."""
    parts = [part for part, _ in _parts(kind)]
    listed = [str(choice) for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    return ["null", *listed] if type(None) in parts else listed


def _refusal(kind: Any) -> Refusal:
    """The error text for a value that does not fit an annotation."""
    parts = list(_parts(kind))
    own = next((note for _, notes in parts for note in notes if isinstance(note, Refusal)), None)
    if own is not None:
        return own
    if all(part is type(None) or get_origin(part) is Literal for part, _ in parts):
        *others, last = choices(kind)
        return Refusal("is unknown", f"use {', '.join(others)} or {last}")
    part, notes = next((part, notes) for part, notes in parts if part is not type(None))
    if part is bool:
        return Refusal("is neither true nor false", "use one of them")
    minimum = next((f" of {note.ge} or more" for note in notes if isinstance(note, Meta) and note.ge is not None), "")
    noun = _NOUNS.get(get_origin(part) or part) or f"a {part.__name__}"
    return Refusal(f"is not {noun}{minimum}", "give it one" if part is str else "use one")


def _parts(kind: Any, notes: Sequence[object] = ()) -> Iterator[tuple[Any, Sequence[object]]]:
    """The alternatives of an annotation, each with the other parts of its ``Annotated``."""
    if get_origin(kind) is Annotated:
        inside, *more = get_args(kind)
        yield from _parts(inside, [*notes, *more])
    elif get_origin(kind) in (Literal, Sequence, Mapping) or not get_args(kind):
        yield kind, notes
    else:
        for part in get_args(kind):
            yield from _parts(part, notes)
